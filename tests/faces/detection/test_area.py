import pytest
import torch
from torch.nn.functional import interpolate

from fsae_mlflow.faces.detection.area import Averages, average_by_gathering, integral

PICTURES = torch.randint(0, 256, (3, 37, 53, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PLANES = PICTURES.permute(0, 3, 1, 2).float()


@pytest.fixture(params=["added up", "gathered"])
def averages(request: pytest.FixtureRequest) -> Averages:
    """As on a CPU, and as on a GPU."""
    found = Averages(PICTURES)
    if request.param == "gathered":
        found.sums = integral(PICTURES)
    return found


def test_resized_is_interpolation_by_area(averages: Averages) -> None:
    for size in [(37, 53), (23, 31), (12, 17), (1, 1), (60, 70)]:
        torch.testing.assert_close(averages.resized(1, 3, *size), interpolate(PLANES[1:3], size, mode="area"))


def test_crops_are_interpolated_by_area_each_from_its_own_picture(averages: Averages) -> None:
    numbers = torch.tensor([2, 0, 1, 1])
    boxes = torch.tensor([[0, 0, 53, 37], [5, 7, 12, 9], [50, 30, 53, 37], [10, 0, 40, 30]])
    for size in (24, 48):
        found = averages.crops(numbers, boxes, size, size)
        for crop, number, (left, top, right, bottom) in zip(found, numbers, boxes.tolist(), strict=True):
            expected = interpolate(PLANES[number : number + 1, :, top:bottom, left:right], (size, size), mode="area")[0]
            torch.testing.assert_close(crop, expected)


def test_sums_beyond_32_bits_do_not_matter() -> None:
    white = torch.full((1, 100, 90_000, 3), 255, dtype=torch.uint8)
    sums = integral(white)
    assert (sums < 0).any()  # they did wrap around
    means = average_by_gathering(sums, torch.tensor([0]), torch.tensor([[0, 0, 90_000, 100]]), 1, 12)
    torch.testing.assert_close(means, torch.full((1, 1, 12, 3), 255.0))
    torch.testing.assert_close(Averages(white).resized(0, 1, 1, 12), means.permute(0, 3, 1, 2))
