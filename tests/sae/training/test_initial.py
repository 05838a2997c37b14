"""What a training began as, and what is said of how sparse it ended."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.parameters import flat
from fsae_mlflow.sae.saved import load_sae, save_sae
from fsae_mlflow.sae.training.dimensions import warn_if_useless
from fsae_mlflow.sae.training.initial import initial_sae
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.spectrum import Spectrum
from tests.sae.making import new_sae, train_settings


def test_the_initial_sae_is_that_of_a_training_that_learned_nothing(template_set: TemplateSet, tmp_path: Path) -> None:
    settings = train_settings(
        variant="topk", k=3, expansion=2, epochs=1, seed=5, lr=1e-12, lr_end=0.0, weight_decay=0.0, normalize=True
    )
    train(settings, templates=template_set, output=tmp_path, on_metrics=lambda *_: None)
    trained, found = load_sae(tmp_path), initial_sae(tmp_path, template_set)
    assert found is not None and not found.training
    for name, tensor in found.state_dict().items():
        if name != "density":
            torch.testing.assert_close(tensor, trained.state_dict()[name], atol=1e-6, rtol=0)


def test_without_the_settings_of_its_training_it_is_not_known(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    complete = {"variant": "gated", "expansion": 2, "seed": 0}
    for settings, reason in (({}, "they lack expansion, seed, variant"), (complete | {"k": 3}, "k is a parameter of")):
        save_sae(new_sae("gated", 16, 32), tmp_path, settings=settings, templates={})
        assert initial_sae(tmp_path, template_set) is None
        assert reason in caplog.text


def test_a_computed_dictionary_began_as_nothing(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = flat(train_settings(variant="ica", expansion=2))
    save_sae(new_sae("ica", 16, 32), tmp_path, settings=settings, templates={})
    with caplog.at_level(logging.INFO, logger="fsae_mlflow"):
        assert initial_sae(tmp_path, template_set) is None
    assert [record.levelname for record in caplog.records] == ["INFO"] and "are computed" in caplog.text


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"train/l0": 9.0, "heldout/l0": 3.4}, "L0 is 3.4, more than a third of the 10 dimensions"),
        ({"train/l0": 9.0, "heldout/l0": 3.3}, ""),
        ({"train/l0": 9.0}, "L0 is 9,"),
        (
            {"train/l0": 3.0, "train/fvu": 0.1, "heldout/fvu": 0.91},
            "fvu is 0.91, so decoded templates are hardly better",
        ),
    ],
)
def test_a_useless_sae_is_told(metrics: dict[str, float], told: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_useless({"train/fvu": 0.5, **metrics}, Spectrum(np.repeat([1.0, 0.0], [10, 6])))
    assert told in caplog.text and bool(told) == bool(caplog.records)
