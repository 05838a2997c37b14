from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.command import command
from fsae_mlflow.visualization.parametrizations.base import Parametrization
from fsae_mlflow.visualization.parametrizations.dip import DeepImagePrior, GroupedConv
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS, load_parametrization
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.stage import visualize

KINDS = pytest.mark.parametrize("name", PARAMETRIZATIONS)


def make(name: str, seeds: list[int], prior: FacePrior) -> Parametrization:
    """Images of random starts; those that begin with an image begin with the mean face."""
    kind = load_parametrization(name)
    given = {"prior": prior} if kind.needs_prior else {}
    if kind.default_start:
        given["start"] = prior.mean.expand(len(seeds), -1, -1, -1)
    return kind([torch.Generator().manual_seed(seed) for seed in seeds], **given)


@KINDS
def test_images_are_rgb_between_0_and_1(name: str, prior: FacePrior) -> None:
    images = make(name, [0, 1, 2], prior)()
    assert images.shape == (3, 3, 112, 112)
    assert images.min() >= 0 and images.max() <= 1
    assert 0.2 < images.mean() < 0.8


@KINDS
def test_an_image_depends_on_its_own_generator_alone(name: str, prior: FacePrior) -> None:
    together, alone = make(name, [5, 6, 7], prior)(), make(name, [6], prior)()
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@KINDS
def test_an_images_gradient_reaches_its_own_parameters_alone(name: str, prior: FacePrior) -> None:
    images = make(name, [0, 1, 2], prior)
    (images()[1].sum() + images.penalty()[1]).backward()
    for parameter in images.parameters():
        assert parameter.grad is not None
        per_image = parameter.grad.reshape(3, -1).abs().sum(dim=1)
        assert per_image[0] == 0 and per_image[2] == 0
    assert any(parameter.grad.reshape(3, -1)[1].abs().sum() > 0 for parameter in images.parameters())


def test_eigenfaces_begin_with_the_start_and_stay_within_real_faces(prior: FacePrior) -> None:
    start = (prior.mean + 0.5 * prior.std[0] * prior.components[0])[None]
    images = load_parametrization("eigenfaces")([torch.Generator().manual_seed(0)], prior=prior, start=start)
    with torch.no_grad():
        images.coefficients -= 0.1 * torch.randn(images.coefficients.shape, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(images(), start.clamp(0, 1), rtol=0, atol=1e-4)
        assert float(images.penalty()[0]) < 1e-8
        images.coefficients.fill_(1e3)
        limit = prior.coefficients.abs().amax(dim=0)
        largest = prior.mean + torch.einsum("k,kchw->chw", limit * prior.std, prior.components)
        torch.testing.assert_close(images()[0], largest.clamp(0, 1), rtol=0, atol=1e-4)


def test_maco_keeps_the_magnitude_of_real_faces(prior: FacePrior) -> None:
    images = make("maco", [0], prior)
    pixels = torch.logit(images()) / 4 + 0.5
    found = torch.fft.rfft2(pixels, norm="ortho").abs()[0]
    inner = found[:, 1:50, 1:50], prior.magnitude[:, 1:50, 1:50]
    torch.testing.assert_close(*inner, rtol=1e-2, atol=1e-3)


def test_accentuation_pays_for_every_pixel_that_moves(prior: FacePrior) -> None:
    images = make("accentuate", [0], prior)
    with torch.no_grad():
        moved = (images() - prior.mean).square().mean()
        assert float(images.penalty()[0]) == pytest.approx(100 * float(moved), rel=0.05)


def test_the_wide_deep_image_prior_has_thin_skips(prior: FacePrior) -> None:
    wide, narrow = make("dip_wide", [0], prior), make("dip", [0], prior)
    n_wide, n_narrow = (sum(one.numel() for one in prior.parameters()) for prior in (wide, narrow))
    assert n_wide > n_narrow
    assert isinstance(narrow, DeepImagePrior) and not list(narrow.skips.parameters())
    assert isinstance(wide, DeepImagePrior)
    assert {one.weight.shape[0] for one in wide.skips.modules() if isinstance(one, GroupedConv)} == {4}


def test_the_noise_of_a_deep_image_prior_is_no_parameter(prior: FacePrior) -> None:
    made = make("dip", [0], prior)
    assert "noise" in dict(made.named_buffers()) and "noise" not in dict(made.named_parameters())


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
    templates: TemplateSet, sae: GatedSAE, recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = list(PARAMETRIZATIONS)
    with pytest.raises(ValueError, match=f"parametrization must be one of {', '.join(known)}; it is 'uniform'"):
        VisualizeSettings(parametrization="uniform")
    monkeypatch.setitem(PARAMETRIZATIONS, "uniform", f"{__name__}:Uniform")
    shown = CliRunner().invoke(command(VisualizeSettings, stage="visualize")(lambda settings, run: None), ["--help"])
    assert f"[{'|'.join(known)}|uniform]" in shown.output
    settings = VisualizeSettings(parametrization="uniform", features="3", n_images=1, steps=2, dial=False, device="cpu")
    done = visualize(settings, templates=templates, sae=sae, recognizer=recognizer, output=tmp_path)
    with Image.open(done.images[0].path) as image:
        assert image.size == (112, 112) and len(image.getcolors()) == 1
