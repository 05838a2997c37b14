"""Area averages of pictures, of any windows at once, from one integral image: compiled on a CPU, gathered on a GPU.

Sums may wrap around: differences over windows of fewer than 8 million pixels come out right all the same.
"""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, UInt8
from numba import njit
from torch import Tensor


def integral(pictures: UInt8[Tensor, "batch height width 3"]) -> Int32[Tensor, "batch height1 width1 3"]:
    """Sums over everything above and to the left; one row and one column larger than the pictures."""
    batch, height, width, _ = pictures.shape
    sums = torch.zeros((batch, height + 1, width + 1, 3), dtype=torch.int32, device=pictures.device)
    if pictures.device.type == "cpu":
        _add_up(pictures.numpy(), sums.numpy())
    else:
        sums[:, 1:, 1:] = pictures.cumsum(dim=2, dtype=torch.int32).cumsum(dim=1, dtype=torch.int32)
    return sums


def resized(
    sums: Int32[Tensor, "batch height1 width1 3"], height: int, width: int
) -> Float[Tensor, "batch 3 height width"]:
    """Whole pictures at another size, 0…255: what `interpolate(mode="area")` gives."""
    whole = torch.tensor([[0, 0, sums.shape[2] - 1, sums.shape[1] - 1]], device=sums.device)
    numbers = torch.arange(len(sums), device=sums.device)
    return crops(sums, numbers, whole.expand(len(sums), 4), height, width)


def crops(
    sums: Int32[Tensor, "batch height1 width1 3"],
    pictures: Int[Tensor, " n"],
    boxes: Int[Tensor, "n 4"],
    height: int,
    width: int,
) -> Float[Tensor, "n 3 height width"]:
    """Boxes of the pictures with these numbers, each at one size, 0…255, in channels-last memory.

    A box is left, top, right, bottom in whole pixels; right and bottom are excluded. None may be empty.
    """
    means = torch.empty((len(boxes), height, width, 3), device=sums.device)
    if sums.device.type == "cpu":
        _average(sums.numpy(), pictures.numpy(), boxes.numpy(), means.numpy())
    else:
        average_by_gathering(sums, pictures, boxes, means)
    return means.permute(0, 3, 1, 2)


def average_by_gathering(
    sums: Int32[Tensor, "batch height1 width1 3"],
    pictures: Int[Tensor, " n"],
    boxes: Int[Tensor, "n 4"],
    means: Float[Tensor, "n height width 3"],
) -> None:
    """Fill in the means of all windows at once: right for a GPU."""
    left, right = _windows(boxes[:, 0::2], means.shape[2])
    top, bottom = _windows(boxes[:, 1::2], means.shape[1])
    first = (pictures * sums.shape[1])[:, None]
    above, below = (first + top) * sums.shape[2], (first + bottom) * sums.shape[2]
    flat = sums.view(-1, 3)

    def corner(row: Tensor, column: Tensor) -> Int32[Tensor, "n height width 3"]:
        return flat[row[:, :, None] + column[:, None, :]]

    totals = corner(below, right) - corner(above, right) - corner(below, left) + corner(above, left)
    means[:] = totals * (1 / (bottom - top))[:, :, None, None] * (1 / (right - left))[:, None, :, None]


def _windows(ranges: Int[Tensor, "n 2"], size: int) -> tuple[Int[Tensor, "n size"], Int[Tensor, "n size"]]:
    """First and last (excluded) index of the `size` windows that adaptive average pooling lays over each range."""
    start, length = ranges[:, :1], ranges[:, 1:] - ranges[:, :1]
    step = torch.arange(size, device=ranges.device)
    return start + step * length // size, start + ((step + 1) * length + size - 1) // size


@no_type_check
@njit(nogil=True, cache=True)
def _add_up(pictures, sums):
    for picture in range(len(pictures)):
        for y in range(pictures.shape[1]):
            red, green, blue = np.int32(0), np.int32(0), np.int32(0)
            for x in range(pictures.shape[2]):
                red += pictures[picture, y, x, 0]
                green += pictures[picture, y, x, 1]
                blue += pictures[picture, y, x, 2]
                sums[picture, y + 1, x + 1, 0] = sums[picture, y, x + 1, 0] + red
                sums[picture, y + 1, x + 1, 1] = sums[picture, y, x + 1, 1] + green
                sums[picture, y + 1, x + 1, 2] = sums[picture, y, x + 1, 2] + blue


@no_type_check
@njit(nogil=True, cache=True)
def _average(sums, pictures, boxes, means):
    _, height, width, _ = means.shape
    # unsigned: numba asks of signed indices whether they count from the end
    first, last, across = np.empty(width, np.uint32), np.empty(width, np.uint32), np.empty(width, np.float32)
    for box in range(len(boxes)):
        left, top, right, bottom = boxes[box]
        picture = sums[pictures[box]]
        for x in range(width):
            first[x] = left + x * (right - left) // width
            last[x] = left + ((x + 1) * (right - left) + width - 1) // width
            across[x] = np.float32(1) / np.float32(last[x] - first[x])
        for y in range(height):
            start, end = top + y * (bottom - top) // height, top + ((y + 1) * (bottom - top) + height - 1) // height
            above, below, down = picture[start], picture[end], np.float32(1) / np.float32(end - start)
            for x in range(width):
                i, j = first[x], last[x]
                for colour in range(3):
                    total = below[j, colour] - above[j, colour] - below[i, colour] + above[i, colour]
                    means[box, y, x, colour] = np.float32(np.int32(total)) * down * across[x]
