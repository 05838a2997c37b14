"""The figures of a study."""

from pathlib import Path
from typing import Any

import pytest

from fsae_mlflow.sweep import figures
from fsae_mlflow.sweep.figures import write_figures
from fsae_mlflow.templates.set import TemplateSet
from tests.sweep.searching import search

NAMES = ("history", "parallel", "slice", "contour", "importances")


def test_each_objective_has_its_pictures(template_set: TemplateSet, tmp_path: Path) -> None:
    given: dict[str, Any] = {"objective": "heldout/fvu,heldout/l0", "n_trials": 4, "output": str(tmp_path / "study")}
    found = search(template_set, **given)
    written = write_figures(found, tmp_path / "figures")
    pictures = [f"{name}{of}.png" for of in ("", "-heldout-l0") for name in NAMES]
    assert [path.name for path in written] == ["front.png", *pictures, "study.html"]
    assert all(path.stat().st_size for path in written)


@pytest.mark.parametrize(
    ("space", "pair"),
    [
        ("lr:1e-6|1e-2,lam:1e-3|1.1e-3,expansion:1|2", ["lam", "expansion"]),
        ("variant:topk,k:3|4,lr:1e-6|1e-2,expansion:1|2", ["k", "expansion"]),
        ("lr:1e-6|1e-2,expansion:1|2", ["lr", "expansion"]),
    ],
)
def test_the_contour_is_over_sparsity_and_expansion(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str, pair: list[str]
) -> None:
    found = search(template_set, space=space, n_trials=5, sampler="grid", lr_end=0, output=str(tmp_path / "study"))
    drawn: list[list[str]] = []
    draw = figures.pictures.plot_contour
    monkeypatch.setattr(
        figures.pictures, "plot_contour", lambda *given, **more: (drawn.append(more["params"]), draw(*given, **more))
    )
    write_figures(found, tmp_path / "figures")
    assert [sorted(params) for params in drawn] == [sorted(pair)]
