"""Area averages of pictures, of any windows at once, from one integral image.

A pixel's three sums and a zero make one element of 16 bytes: gathering such elements is several times faster than
gathering rows of three numbers. The zero stays as a fourth channel, for taking it out would cost as much again. Sums
may wrap around: differences over windows of fewer than 8 million pixels come out right all the same.
"""

import torch
from jaxtyping import Complex, Float, Int, UInt8
from torch import Tensor

PACKED = torch.complex128  # only ever moved as a whole, never calculated with


def integral(pictures: UInt8[Tensor, "batch height width 3"]) -> Complex[Tensor, "batch height1 width1"]:
    """Sums over everything above and to the left; one row and one column larger than the pictures."""
    batch, height, width, _ = pictures.shape
    sums = torch.zeros((batch, height + 1, width + 1, 4), dtype=torch.int32, device=pictures.device)
    sums[:, 1:, 1:, :3] = torch.cumsum(pictures, dim=2, dtype=torch.int32)
    if pictures.device.type != "cpu":
        return sums.cumsum(dim=1, dtype=torch.int32).view(PACKED)[..., 0]
    for row in range(height):  # whole rows at once are faster than cumsum's columns
        sums[:, row + 1] += sums[:, row]
    return sums.view(PACKED)[..., 0]


def resized(
    sums: Complex[Tensor, "batch height1 width1"], height: int, width: int
) -> Float[Tensor, "batch 4 height width"]:
    """Whole pictures at another size, 0…255: what `interpolate(mode="area")` gives, and a channel of zeros."""
    whole = torch.tensor([[0, 0, sums.shape[2] - 1, sums.shape[1] - 1]], device=sums.device)
    numbers = torch.arange(len(sums), device=sums.device)
    return crops(sums, numbers, whole.expand(len(sums), 4), height, width)


def crops(
    sums: Complex[Tensor, "batch height1 width1"],
    pictures: Int[Tensor, " n"],
    boxes: Int[Tensor, "n 4"],
    height: int,
    width: int,
) -> Float[Tensor, "n 4 height width"]:
    """Boxes of the pictures with these numbers, each at one size, 0…255, and a channel of zeros.

    A box is left, top, right, bottom in whole pixels; right and bottom are excluded.
    """
    left, right = _windows(boxes[:, 0::2], width)
    top, bottom = _windows(boxes[:, 1::2], height)
    first = (pictures * sums.shape[1])[:, None]
    above, below = (first + top) * sums.shape[2], (first + bottom) * sums.shape[2]
    flat = sums.reshape(-1)

    def corner(row: Tensor, column: Tensor) -> Int[Tensor, "n height width4"]:
        places = (row[:, :, None] + column[:, None, :]).flatten()
        return flat.index_select(0, places).view(-1, height, width).view(torch.int32)

    totals = corner(below, right).sub_(corner(above, right)).sub_(corner(below, left)).add_(corner(above, left))
    heights, widths = 1 / (bottom - top)[:, :, None], 1 / (right - left).repeat_interleave(4, dim=1)[:, None, :]
    return totals.float().mul_(heights).mul_(widths).view(-1, height, width, 4).permute(0, 3, 1, 2)


def _windows(ranges: Int[Tensor, "n 2"], size: int) -> tuple[Int[Tensor, "n size"], Int[Tensor, "n size"]]:
    """First and last (excluded) index of the `size` windows that adaptive average pooling lays over each range."""
    start, length = ranges[:, :1], ranges[:, 1:] - ranges[:, :1]
    step = torch.arange(size, device=ranges.device)
    return start + step * length // size, start + ((step + 1) * length + size - 1) // size
