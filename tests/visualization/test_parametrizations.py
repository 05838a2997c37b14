from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.command import command
from fsae_mlflow.visualization.parametrizations.base import Parametrization
from fsae_mlflow.visualization.parametrizations.dip import DeepImagePrior
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS, load_parametrization
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.visualize import visualize

KINDS = pytest.mark.parametrize("name", PARAMETRIZATIONS)


def make(name: str, seeds: list[int], size: int = 32) -> Parametrization:
    return load_parametrization(name)([torch.Generator().manual_seed(seed) for seed in seeds], size=size)


@KINDS
def test_images_are_rgb_between_0_and_1(name: str) -> None:
    images = make(name, [0, 1, 2], size=112)()
    assert images.shape == (3, 3, 112, 112)
    assert images.min() >= 0 and images.max() <= 1
    assert 0.2 < images.mean() < 0.8


@KINDS
def test_an_image_depends_on_its_own_generator_alone(name: str) -> None:
    together, alone = make(name, [5, 6, 7])(), make(name, [6])()
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@KINDS
def test_an_images_gradient_reaches_its_own_parameters_alone(name: str) -> None:
    images = make(name, [0, 1, 2])
    images()[1].sum().backward()
    for parameter in images.parameters():
        assert parameter.grad is not None
        per_image = parameter.grad.reshape(3, -1).abs().sum(dim=1)
        assert per_image[0] == 0 and per_image[2] == 0
    assert any(parameter.grad.reshape(3, -1)[1].abs().sum() > 0 for parameter in images.parameters())


def test_the_noise_of_a_deep_image_prior_is_no_parameter() -> None:
    prior = make("dip", [0])
    assert "noise" in dict(prior.named_buffers()) and "noise" not in dict(prior.named_parameters())


def test_a_size_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 16 for 4 halvings; it is 100"):
        DeepImagePrior([torch.Generator()], size=100)


class Uniform(Parametrization):
    """One gray level an image."""

    def __init__(self, generators: Sequence[torch.Generator], *, size: int = 112) -> None:
        super().__init__(generators, size=size)
        self.level = nn.Parameter(torch.zeros(len(generators), 1, 1, 1))

    def forward(self) -> torch.Tensor:
        return self.level.sigmoid().expand(-1, 3, self.size, self.size)


def test_a_parametrization_is_one_class_and_one_line(
    templates: TemplateSet, sae: GatedSAE, recognizer: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = list(PARAMETRIZATIONS)
    with pytest.raises(ValueError, match=f"parametrization must be one of {', '.join(known)}; it is 'uniform'"):
        VisualizeSettings(parametrization="uniform")
    monkeypatch.setitem(PARAMETRIZATIONS, "uniform", f"{__name__}:Uniform")
    shown = CliRunner().invoke(command(VisualizeSettings, stage="visualize")(lambda settings, run: None), ["--help"])
    assert f"[{'|'.join(known)}|uniform]" in shown.output
    settings = VisualizeSettings(parametrization="uniform", features="3", n_images=1, steps=2, device="cpu")
    done = visualize(settings, templates=templates, sae=sae, recognizer=recognizer, output=tmp_path)
    with Image.open(done.images[0].path) as image:
        assert image.size == (112, 112) and len(image.getcolors()) == 1
