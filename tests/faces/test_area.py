import torch
from torch.nn.functional import interpolate

from fsae_mlflow.faces.area import average_by_gathering, crops, integral, resized

PICTURES = torch.randint(0, 256, (3, 37, 53, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PLANES = PICTURES.permute(0, 3, 1, 2).float()


def test_resized_is_interpolation_by_area() -> None:
    for size in [(37, 53), (23, 31), (12, 17), (1, 1), (60, 70)]:
        torch.testing.assert_close(resized(integral(PICTURES), *size), interpolate(PLANES, size, mode="area"))


def test_crops_are_interpolated_by_area_each_from_its_own_picture() -> None:
    numbers = torch.tensor([2, 0, 1, 1])
    boxes = torch.tensor([[0, 0, 53, 37], [5, 7, 12, 9], [50, 30, 53, 37], [10, 0, 40, 30]])
    for size in (24, 48):
        found = crops(integral(PICTURES), numbers, boxes, size, size)
        for crop, number, (left, top, right, bottom) in zip(found, numbers, boxes.tolist(), strict=True):
            expected = interpolate(PLANES[number : number + 1, :, top:bottom, left:right], (size, size), mode="area")[0]
            torch.testing.assert_close(crop, expected)


def test_both_ways_give_the_same() -> None:
    numbers = torch.tensor([2, 0, 1])
    boxes = torch.tensor([[0, 0, 53, 37], [5, 7, 12, 9], [50, 30, 53, 37]])
    means = torch.empty(3, 24, 31, 3)
    average_by_gathering(integral(PICTURES), numbers, boxes, means)
    torch.testing.assert_close(means.permute(0, 3, 1, 2), crops(integral(PICTURES), numbers, boxes, 24, 31))


def test_sums_beyond_32_bits_do_not_matter() -> None:
    white = torch.full((1, 2900, 2950, 3), 255, dtype=torch.uint8)
    sums = integral(white)
    assert (sums < 0).any()  # they did wrap around
    torch.testing.assert_close(resized(sums, 12, 12), torch.full((1, 3, 12, 12), 255.0))
