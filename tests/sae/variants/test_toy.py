"""A variant that only the tests have: registered by one line, it does what every variant does."""

import re
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import torch
from annotated_types import Gt
from click.testing import CliRunner
from torch.nn import functional as F

from fsae_mlflow.parameters import settings
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.sae.terms import Activations
from fsae_mlflow.sae.training.checkpoint import CHECKPOINT
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.sae.variants.settings import PenalizedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings

ROOT = Path(__file__).parents[3]


@settings
class ToySettings(PenalizedSettings):
    sae: ClassVar[str] = "tests.sae.variants.test_toy:ToySAE"
    power: Annotated[float, "Exponent of the activations.", Gt(0)] = 2.0


class ToySAE(SparseAutoencoder):
    """f = ReLU(p + b)^power, with the gate's own reconstruction as auxiliary term."""

    feature_parameters = ("b_enc",)

    def activations(self, p, expand, norms):
        gate = F.relu(p + expand(self.b_enc))
        return Activations(gate**self.settings.power, gate, gate.sum())

    def firing_level(self):
        return -self.b_enc

    def auxiliary_target(self, x, x_hat):
        return x - self.b_dec

    @property
    def auxiliary_weight(self):
        return 0.5


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VARIANTS, "toy", ToySettings)


def toy(**values: object):
    own = {"variant": "toy", "power": 1.5, "lam": 0.05, "resample_every": 2}
    return train_settings(**{"expansion": 4, "epochs": 4, "batch_size": 64, "lr": 5e-3, **own, **values})


def test_it_trains_plain_and_fused_resumes_saves_and_loads(
    template_set: TemplateSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {}
    for step in ("plain", "fused"):
        results[step] = train(
            toy(step=step), templates=template_set, output=tmp_path / step, on_metrics=lambda *_: None
        )
        x = torch.from_numpy(template_set.templates)
        loaded = load_sae(tmp_path / step)
        assert loaded.hyperparameters["power"] == 1.5 and torch.equal(loaded(x), results[step].sae(x))
    assert results["plain"].metrics["train/fvu"] < 1
    for name, tensor in results["plain"].sae.state_dict().items():
        torch.testing.assert_close(results["fused"].sae.state_dict()[name], tensor, rtol=1e-3, atol=1e-4, msg=name)

    original = Trainer.run_step

    def stopped(self, batch):
        if self.step == 7:
            raise KeyboardInterrupt
        return original(self, batch)

    arguments = {"templates": template_set, "output": tmp_path / "stopped", "on_metrics": lambda *_: None}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "run_step", stopped)
        train(toy(step="fused"), **arguments)
    assert (tmp_path / "stopped" / CHECKPOINT).is_file()
    resumed = train(toy(step="fused"), **arguments).sae.state_dict()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in results["fused"].sae.state_dict().items())


def test_it_appears_on_the_command_line() -> None:
    from entrypoints.train_sae import main

    shown = CliRunner().invoke(main, ["--help"]).output
    assert "|toy]" in "".join(shown.split()) and "--power" in shown
    refused = CliRunner().invoke(main, ["--power", "3"])
    assert refused.exit_code == 2 and "power is a parameter of variant toy, and variant is gated" in refused.output


def test_no_room_asks_which_variant_it_has() -> None:
    """Training, fused step, slices, saving and export ask the variant itself."""
    asked = re.compile(r"isinstance\([^)]*(SAE|Settings)\b|(Gated|Relu|TopK|Matryoshka)SAE\b")
    for path in (ROOT / "fsae_mlflow").rglob("*.py"):
        if "variants" not in path.parts:
            assert not asked.search(path.read_text()), path
