"""Area averages of pictures, of any windows at once, from one integral image."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


def integral(pictures: UInt8[Tensor, "batch height width 3"]) -> Int[Tensor, "batch height1 width1 3"]:
    """Sums over everything above and to the left; one row and one column larger than the pictures.

    The sums may wrap around: differences over windows of fewer than 8 million pixels come out right all the same.
    """
    batch, height, width, _ = pictures.shape
    sums = torch.zeros((batch, height + 1, width + 1, 3), dtype=torch.int32, device=pictures.device)
    torch.cumsum(pictures, dim=1, dtype=torch.int32, out=sums[:, 1:, 1:])
    return torch.cumsum(sums, dim=2, dtype=torch.int32)


def resized(
    sums: Int[Tensor, "batch height1 width1 3"], height: int, width: int
) -> Float[Tensor, "batch 3 height width"]:
    """Whole pictures at another size: what `interpolate(mode="area")` gives, 0…255."""
    top, bottom = (edge[0] for edge in _windows(torch.tensor([[0, sums.shape[1] - 1]], device=sums.device), height))
    left, right = (edge[0] for edge in _windows(torch.tensor([[0, sums.shape[2] - 1]], device=sums.device), width))
    rows = sums.index_select(1, bottom) - sums.index_select(1, top)
    totals = rows.index_select(2, right) - rows.index_select(2, left)
    area = (bottom - top)[:, None] * (right - left)
    return (totals / area[..., None]).permute(0, 3, 1, 2)


def crops(
    sums: Int[Tensor, "batch height1 width1 3"], pictures: Int[Tensor, " n"], boxes: Int[Tensor, "n 4"], size: int
) -> Float[Tensor, "n 3 size size"]:
    """Boxes of the pictures with these numbers, each at `size` x `size`, 0…255.

    A box is left, top, right, bottom in whole pixels; right and bottom are excluded.
    """
    height, width = sums.shape[1:3]
    left, right = _windows(boxes[:, 0::2], size)
    top, bottom = _windows(boxes[:, 1::2], size)
    flat = sums.view(-1, 3)
    first = pictures * (height * width)
    top, bottom = first[:, None] + top * width, first[:, None] + bottom * width

    def corner(row: Tensor, column: Tensor) -> Tensor:
        return flat.index_select(0, (row[:, :, None] + column[:, None, :]).flatten()).view(-1, size, size, 3)

    totals = corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)
    area = ((bottom - top) // width)[:, :, None] * (right - left)[:, None, :]
    return (totals / area[..., None]).permute(0, 3, 1, 2)


def _windows(ranges: Int[Tensor, "n 2"], size: int) -> tuple[Int[Tensor, "n size"], Int[Tensor, "n size"]]:
    """First and last (excluded) index of the `size` windows that adaptive average pooling lays over each range."""
    start, length = ranges[:, :1], ranges[:, 1:] - ranges[:, :1]
    step = torch.arange(size, device=ranges.device)
    return start + step * length // size, start + ((step + 1) * length + size - 1) // size
