"""The metrics of readings at the end of a training are those of describe, or a line says why there are none."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fsae_mlflow.features.describe import FEWEST_PEOPLE, OF_CONTROLS, describe, reading_metrics
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import new_sae

SETTINGS = DescribeSettings(controls="pca", device="cpu")


def test_reading_metrics_are_those_of_describe(labeled: Callable[..., TemplateSet], tmp_path: Path) -> None:
    torch.manual_seed(0)
    templates, sae = labeled(), new_sae("topk", 8, 24, k=4)
    about = {"templates": templates.digest, "sae": "an SAE"}
    logged: dict[str, float] = {}
    described = describe(
        SETTINGS,
        templates=templates,
        sae=sae,
        judge=None,
        about=about,
        output=tmp_path,
        on_metrics=lambda metrics, _: logged.update(metrics),
    )
    found = reading_metrics(SETTINGS, templates=templates, sae=sae)
    assert described is not None and described.metrics["sae"].items() >= found.items()
    assert described.metrics["sae"].keys() - found.keys() == {"l0", "fvu", "alive", "antipodes"}
    of_pca = {f"controls/pca/{name}": described.metrics["pca"][name] for name in OF_CONTROLS}
    assert logged == described.metrics["sae"] | of_pca
    assert len(described.metrics["pca"]) > len(OF_CONTROLS)
    expected = {"readings/confirmed_of_alive", "readings/strong_of_alive", "readings/n_kinds", "probes/auroc_k1"}
    assert expected | {"readings/pose_invariant", "readings/n_identities"} <= found.keys()
    assert found["readings/n_kinds"] == 1 and found["probes/n_attributes"] == 1 and found["probes/auroc_k5"] > 0.9


def test_features_of_a_set_without_attributes_are_not_read(
    labeled: Callable[..., TemplateSet], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    templates = labeled()
    for attributes in ({}, {"note": "string"}):
        other = dataclasses.replace(templates, metadata=templates.metadata | {"attributes": attributes})
        assert reading_metrics(SETTINGS, templates=other, sae=new_sae("topk", 8, 16, k=4)) == {}
    assert not caplog.messages


@pytest.mark.parametrize(
    ("n_people", "fault", "sentence"),
    [
        (19, "", "has 19. Extract faces of more people."),
        (40, "dead", "0 of 16 features fire"),
        (40, "damaged", "faces-00000.parquet"),
    ],
)
def test_features_that_cannot_be_read_are_one_line(
    n_people: int,
    fault: str,
    sentence: str,
    labeled: Callable[..., TemplateSet],
    caplog: pytest.LogCaptureFixture,
) -> None:
    templates, sae = labeled(n_people=n_people), new_sae("relu", 8, 16)
    if fault == "dead":
        for parameter in sae.parameters():
            parameter.data.fill_(-1 if parameter.ndim == 1 else 0)
    if fault == "damaged":
        (templates.folder / "faces-00000.parquet").write_bytes(b"damaged")
    with caplog.at_level(logging.INFO):
        assert reading_metrics(SETTINGS, templates=templates, sae=sae) == {}
    (line,) = [one for one in caplog.messages if one.startswith("The features are not read: ")]
    assert sentence in line
    assert n_people >= FEWEST_PEOPLE or caplog.messages == [line]
