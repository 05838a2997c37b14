"""The figure of a front."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fsae_mlflow.report.front import Point, _label, front_figure


def points(xs: np.ndarray, ys: np.ndarray) -> list[Point]:
    return [
        Point(x=float(x), y=float(y), label=str(100 + place), on_front=place % 2 == 0, best=place == 2)
        for place, (x, y) in enumerate(zip(xs, ys, strict=True))
    ]


@pytest.mark.parametrize("crowding", [1e-3, 0.1, 1.0])
def test_labels_do_not_cover_each_other(crowding: float) -> None:
    xs, ys = 50 + crowding * np.random.default_rng(0).uniform(0, 50, size=(2, 25))
    figure = Figure(figsize=(6.4, 4.4), dpi=160)
    renderer, axes = FigureCanvasAgg(figure).get_renderer(), figure.add_subplot(xlim=(0, 120), ylim=(0, 120))
    axes.plot(xs, ys, "o")
    _label(axes, points(xs, ys))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert (20 if crowding == 1.0 else 1) <= len(boxes) <= 25


@pytest.mark.parametrize("xs", [[5, 50, 500], [-0.2, 0.5, 0.9], [3, 3, 3]])
def test_any_metrics_are_drawn(xs: list[float], tmp_path: Path) -> None:
    path = front_figure(
        points(np.array(xs), np.array([0.9, 0.5, 0.3])), tmp_path / "a.png", across="a", up="b", worst=0.6
    )
    with Image.open(path) as image:
        assert len(np.unique(np.asarray(image.convert("L")))) > 20
