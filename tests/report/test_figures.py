from pathlib import Path

import numpy as np
import pytest
from matplotlib import rcParams
from PIL import Image

from fsae_mlflow.features.clusters import clusters
from fsae_mlflow.report import style
from fsae_mlflow.report.densities import _edges, density_histogram, density_series
from fsae_mlflow.report.grid import GridRow, Tile, feature_grid
from fsae_mlflow.report.verification.accuracy import Series, accuracy_figure, roc_figure


def is_drawn(path: Path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and len(np.unique(np.asarray(image.convert("L")))) > 20


def series() -> list[Series]:
    points = np.linspace(0, 1, 50)
    accuracies = np.linspace(0.9, 0.95, 10)
    return [
        Series(
            label="Original templates", color=style.INK, accuracies=accuracies, far=points, tar=points**0.1, auc=0.98
        ),
        Series(
            label="Decoded from all", color=style.BLUE, accuracies=accuracies - 0.5, far=points, tar=points, auc=0.5
        ),
    ]


def test_accuracies_and_roc_curves_are_drawn(tmp_path: Path) -> None:
    assert is_drawn(accuracy_figure(series(), tmp_path / "table.png", title="400 pairs"))
    assert is_drawn(roc_figure(series(), tmp_path / "roc.png", n_impostors=200))


DENSITIES = {
    "three": np.array([0.0, 0.1, 0.2]),
    "all alike": np.array([1.0, 1.0, 0.0]),
    "far apart": np.array([1e-7, 1.0]),
    "hump": 10 ** np.random.default_rng(0).normal(-2, 0.3, 500).clip(max=0),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_histogram_bins_cover_all_alive_features_and_part_at_the_split(name: str, tmp_path: Path) -> None:
    density = DENSITIES[name]
    split = clusters(density)
    edges = _edges(density[density > 0], split.split)
    assert np.isclose(edges, split.split, rtol=1e-9).sum() == 1
    assert np.histogram(density[density > 0], bins=edges)[0].sum() == (density > 0).sum()
    assert is_drawn(density_histogram(density, split, tmp_path / "density.png", source="the training templates"))


def test_figures_leave_no_global_state(tmp_path: Path) -> None:
    before = dict(rcParams)
    accuracy_figure(series(), tmp_path / "table.png", title="400 pairs")
    assert dict(rcParams) == before


def test_a_figure_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), style.plot(tmp_path / "half.png", 3.0, 3.0):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def tiles(n: int) -> list[Tile]:
    return [Tile(picture=Image.new("RGB", (112, 112), (20 * index, 100, 50)), caption=str(index)) for index in range(n)]


def test_a_grid_with_rows_of_different_length(tmp_path: Path) -> None:
    rows = [
        GridRow(heading="Feature 3", faces=tiles(4), images=tiles(2)),
        GridRow(heading="Feature 9", faces=tiles(1), images=[]),
    ]
    assert is_drawn(feature_grid(rows, tmp_path / "grid.png", title="Left and right"))
    with pytest.raises(ValueError, match="there is no feature to draw"):
        feature_grid([], tmp_path / "none.png")


@pytest.mark.parametrize("n_faces", [1, 6])
def test_a_long_title_stays_inside_the_grid(n_faces: int, tmp_path: Path) -> None:
    white = Tile(picture=Image.new("RGB", (8, 8), "white"))
    rows = [GridRow(heading="Feature 3", faces=[white] * n_faces, images=[white])]
    title = "Left: its top faces, at most 3 a person. Right: images optimized for it. Below: activation"
    with Image.open(feature_grid(rows, tmp_path / "grid.png", title=title)) as image:
        ink = np.flatnonzero((np.asarray(image.convert("L")) < 128).any(axis=0))
    assert ink[0] > 0 and ink[-1] < image.width - 5


def test_a_series_of_densities_has_the_last_epoch_and_few_others(tmp_path: Path) -> None:
    shown: list[tuple[Path, int]] = []
    draw = density_series(tmp_path, 30, lambda path, epoch: shown.append((path, epoch)))
    for epoch in range(1, 31):
        # None fires at first; a cluster cannot be split from one feature that fires.
        draw(np.array([0.0, 0.0 if epoch < 8 else 0.1, 0.0 if epoch < 5 else 0.5]), epoch)
    assert [epoch for _, epoch in shown] == [9, 12, 15, 18, 21, 24, 27, 30]
    assert all(is_drawn(path) for path, _ in shown)
