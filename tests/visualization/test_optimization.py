from collections.abc import Iterator
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.visualization.objective import gate_objective, jittered
from fsae_mlflow.visualization.optimization import Job, Record, optimize
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS, load_parametrization


def run(
    jobs: list[Job], recognizer: nn.Module, sae: GatedSAE, *, name: str = "pixels", steps: int = 12, jitter: int = 1
) -> tuple[torch.Tensor, list[Record]]:
    make = partial(load_parametrization(name), size=32)
    cpu = torch.device("cpu")
    return optimize(
        jobs, make, recognizer=recognizer, sae=sae, steps=steps, lr=1e-2, jitter=jitter, record_every=5, device=cpu
    )


def test_the_objective_is_the_gate_without_its_bias(sae: GatedSAE) -> None:
    templates = torch.randn(3, sae.d_in, generator=torch.Generator().manual_seed(0))
    features = torch.tensor([4, 0, 4])
    sae = GatedSAE(sae.d_in, sae.d_sae, GatedSettings(), scale=0.3).requires_grad_(False)
    sae.b_gate.fill_(0.7)
    sae.b_dec.copy_(torch.linspace(-1, 1, sae.d_in))
    expected = sae.gate_preactivation(templates).gather(1, features[:, None])[:, 0] - 0.7
    torch.testing.assert_close(gate_objective(sae, features, templates), expected)


def test_jitter_shifts_each_image_by_its_own_generator() -> None:
    image = torch.arange(36.0).reshape(1, 1, 6, 6).expand(2, 3, 6, 6)
    shifted = jittered(image, [torch.Generator().manual_seed(seed) for seed in (0, 3)], largest=2)
    again = jittered(image[:1], [torch.Generator().manual_seed(3)], largest=2)
    torch.testing.assert_close(shifted[1], again[0])
    offsets = {float(one[0, 3, 3] - image[0, 0, 3, 3]) for one in shifted}
    assert offsets <= {6.0 * dy + dx for dy in range(-2, 3) for dx in range(-2, 3)} and len(offsets) == 2
    assert jittered(image, [], largest=0) is image


@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_the_objective_rises_and_is_recorded(name: str, recognizer: nn.Module, sae: GatedSAE) -> None:
    images, records = run([Job(feature=3, seed=0), Job(feature=9, seed=0)], recognizer, sae, name=name)
    assert [record.step for record in records] == [0, 4, 9, 12]
    assert (records[-1].objective > records[0].objective).all()
    templates = recognizer(images)
    np.testing.assert_allclose(records[-1].norm, templates.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(records[-1].activation, sae.encode(templates)[[0, 1], [3, 9]], rtol=1e-5)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")  # AdamW's first steps follow the sign of a gradient, even if it is a rounding error
@pytest.mark.parametrize("name", PARAMETRIZATIONS)
def test_an_image_comes_out_the_same_in_any_company(name: str, recognizer: nn.Module, sae: GatedSAE) -> None:
    recognizer, sae = deepcopy(recognizer).double(), deepcopy(sae).double()
    job = Job(feature=3, seed=1)
    together, _ = run([Job(feature=9, seed=0), job, Job(feature=3, seed=2)], recognizer, sae, name=name, steps=6)
    alone, _ = run([job], recognizer, sae, name=name, steps=6)
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-6)
    assert (together[1] - together[2]).abs().max() > 0.01


def test_the_same_job_gives_the_same_image(recognizer: nn.Module, sae: GatedSAE) -> None:
    first, second = (run([Job(feature=1, seed=4)], recognizer, sae, steps=3)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_feature_and_seed_both_choose_the_start() -> None:
    draws = {
        float(torch.randn(1, generator=Job(feature=feature, seed=seed).generator()))
        for feature in range(4)
        for seed in range(4)
    }
    assert len(draws) == 16


def test_an_objective_that_is_not_finite_is_reported(sae: GatedSAE) -> None:
    class Broken(nn.Module):
        def forward(self, faces: torch.Tensor) -> torch.Tensor:
            return faces.flatten(1)[:, :12] / 0

    with pytest.raises(FloatingPointError, match="step 1; lower lr"):
        run([Job(feature=0, seed=0)], Broken(), sae)
