"""Averages of pictures over windows, many at once: by a compiled loop on a CPU, from an integral image on a GPU.

32-bit sums may overflow; their differences are still right for windows of fewer than 8 million pixels.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, UInt8
from numba import njit
from torch import Tensor


class Averages:
    """Averages over windows of `pictures`, which have one size.

    On a GPU they come from an integral image. On a CPU the pixels are added up: an integral image is four times larger,
    and reading it from memory takes longer than adding.
    """

    def __init__(self, pictures: UInt8[Tensor, "batch height width 3"]) -> None:
        self.pictures = pictures
        self.sums = None if pictures.device.type == "cpu" else integral(pictures)

    def resized(self, first: int, last: int, height: int, width: int) -> Float[Tensor, "n 3 height width"]:
        """The pictures from `first` to `last` (excluded) at another size, 0…255, as by `interpolate(mode="area")`."""
        device = self.pictures.device
        whole = torch.tensor([[0, 0, self.pictures.shape[2], self.pictures.shape[1]]], device=device)
        return self.crops(torch.arange(first, last, device=device), whole.expand(last - first, 4), height, width)

    def crops(
        self, numbers: Int[Tensor, " n"], boxes: Int[Tensor, "n 4"], height: int, width: int
    ) -> Float[Tensor, "n 3 height width"]:
        """Boxes of the pictures with these numbers, all resized to one size, 0…255, in channels-last memory.

        A box is left, top, right, bottom in whole pixels, right and bottom excluded, and must not be empty.
        """
        if self.sums is None:
            means = torch.empty(len(boxes), height, width, 3)
            _average(self.pictures.numpy(), numbers.numpy(), boxes.numpy(), means.numpy())
        else:
            means = average_by_gathering(self.sums, numbers, boxes, height, width)
        return means.permute(0, 3, 1, 2)


def integral(pictures: UInt8[Tensor, "batch height width 3"]) -> Int32[Tensor, "batch height1 width1 3"]:
    """Sums over all pixels above and to the left; one row and one column larger than the pictures."""
    batch, height, width, _ = pictures.shape
    sums = torch.zeros((batch, height + 1, width + 1, 3), dtype=torch.int32, device=pictures.device)
    sums[:, 1:, 1:] = pictures.cumsum(dim=2, dtype=torch.int32).cumsum(dim=1, dtype=torch.int32)
    return sums


def average_by_gathering(
    sums: Int32[Tensor, "batch height1 width1 3"],
    numbers: Int[Tensor, " n"],
    boxes: Int[Tensor, "n 4"],
    height: int,
    width: int,
) -> Float[Tensor, "n height width 3"]:
    """The means of all windows at once, which suits a GPU."""
    left, right = _windows(boxes[:, 0::2], width)
    top, bottom = _windows(boxes[:, 1::2], height)
    first = (numbers * sums.shape[1])[:, None]
    above, below = (first + top) * sums.shape[2], (first + bottom) * sums.shape[2]
    flat = sums.view(-1, 3)

    def corner(row: Tensor, column: Tensor) -> Int32[Tensor, "n height width 3"]:
        return flat[row[:, :, None] + column[:, None, :]]

    totals = corner(below, right) - corner(above, right) - corner(below, left) + corner(above, left)
    return totals * (1 / (bottom - top))[:, :, None, None] * (1 / (right - left))[:, None, :, None]


def _windows(ranges: Int[Tensor, "n 2"], size: int) -> tuple[Int[Tensor, "n size"], Int[Tensor, "n size"]]:
    """First and last (excluded) index of the `size` windows that adaptive average pooling divides each range into."""
    start, length = ranges[:, :1], ranges[:, 1:] - ranges[:, :1]
    step = torch.arange(size, device=ranges.device)
    return start + step * length // size, start + ((step + 1) * length + size - 1) // size


@no_type_check
@njit(nogil=True, cache=True, error_model="numpy")
def _average(pictures, numbers, boxes, means):
    _, height, width, _ = means.shape
    # unsigned indices, because numba checks signed ones for being negative
    first, last, across = np.empty(width, np.uint32), np.empty(width, np.uint32), np.empty(width, np.float32)
    green, blue = np.uint32(1), np.uint32(2)
    down = np.empty(3 * pictures.shape[2], np.int32)  # sums over the rows of a window
    along = np.empty(3 * pictures.shape[2] + 3, np.int32)  # cumulative sums of those, from the left
    for box in range(len(boxes)):
        left, top, right, bottom = boxes[box]
        n_columns, n_rows = right - left, bottom - top
        rows = pictures[numbers[box]].reshape(pictures.shape[1], -1)[:, 3 * left : 3 * right]
        for x in range(width):
            start, end = x * n_columns // width, ((x + 1) * n_columns + width - 1) // width
            first[x], last[x], across[x] = 3 * start, 3 * end, np.float32(1) / np.float32(end - start)
        for y in range(height):
            start, end = top + y * n_rows // height, top + ((y + 1) * n_rows + height - 1) // height
            _add_down(rows[start:end], down)
            _add_along(down[: 3 * n_columns], along)
            share = np.float32(1) / np.float32(end - start)
            for x in range(width):
                i, j = first[x], last[x]
                # numba subtracts in 64 bits; an overflow cancels only in 32 bits
                means[box, y, x, 0] = np.float32(np.int32(along[j] - along[i])) * share * across[x]
                means[box, y, x, 1] = np.float32(np.int32(along[j + green] - along[i + green])) * share * across[x]
                means[box, y, x, 2] = np.float32(np.int32(along[j + blue] - along[i + blue])) * share * across[x]


@no_type_check
@njit(nogil=True, cache=True)
def _add_down(rows, down):
    for i in range(rows.shape[1]):
        down[i] = rows[0, i]
    for y in range(1, len(rows)):
        for i in range(rows.shape[1]):
            down[i] += rows[y, i]


@no_type_check
@njit(nogil=True, cache=True)
def _add_along(down, along):
    one, two, three = np.uint32(1), np.uint32(2), np.uint32(3)
    red, green, blue = np.int32(0), np.int32(0), np.int32(0)
    along[0], along[1], along[2] = red, green, blue
    for i in range(np.uint32(0), np.uint32(len(down)), three):
        red += down[i]
        green += down[i + one]
        blue += down[i + two]
        along[i + three], along[i + three + one], along[i + three + two] = red, green, blue
