"""What an SAE's measures are, computed on all entries or on those that fire."""

import pytest
import torch

from fsae_mlflow.sae.training import loop, stage
from fsae_mlflow.sae.training.measures import Measures, measure
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import firing_sae, train_settings

X = torch.nn.functional.normalize(torch.randn(150, 64, generator=torch.Generator().manual_seed(0)), dim=1)


@pytest.mark.parametrize("density", [0.01, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_active_entries_give_the_same_measures(variant: str, density: float) -> None:
    sae = firing_sae(variant, X, 256, density=density, lam=0.3)
    dense, sparse = (measure(sae, X, batch_size=64, sample=sample) for sample in (None, X[:100]))
    assert sparse.metrics("x") == pytest.approx(dense.metrics("x"), rel=1e-5)
    assert (sparse.sparsity.counts == dense.sparsity.counts).all() and dense.sparsity.l0 > 0


@pytest.mark.parametrize("sample", [None, X], ids=["dense", "sparse"])
@pytest.mark.parametrize("variant", ["topk", "batchtopk", "matryoshka"])
@torch.no_grad()
def test_the_loss_is_of_the_features_that_fire_in_use(variant: str, sample: torch.Tensor | None) -> None:
    """Not of the places that a batch shares in training: one template gives the same as all."""
    sae = firing_sae(variant, X, 256, density=0.05)
    found = measure(sae, X, sample=sample)
    one_by_one = measure(sae, X, batch_size=1, sample=sample)
    assert one_by_one.metrics("x") == pytest.approx(found.metrics("x"), rel=1e-4)
    features = sae.features(X)
    assert found.sparsity.counts.tolist() == (features > 0).sum(dim=0).tolist()
    parts = [features[:, :n] @ sae.W_dec[:n] + sae.b_dec for n in sae.prefixes]
    error = sum(float((X - x_hat).square().sum()) for x_hat in parts) / len(parts) / len(X)
    assert found.losses["reconstruction"] == pytest.approx(error, rel=1e-5)
    assert found.losses["sparsity"] == found.losses["auxiliary"] == 0


@pytest.mark.parametrize("step", ["plain", "fused"])
def test_a_fused_training_measures_active_entries(
    step: str, template_set: TemplateSet, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples: list[torch.Tensor | None] = []

    def seen(*arguments: object, sample: torch.Tensor | None = None) -> Measures:
        samples.append(sample)
        return measure(*arguments, sample=sample)  # pyright: ignore[reportArgumentType]

    for module in (loop, stage):
        monkeypatch.setattr(module, "measure", seen)
    settings = train_settings(expansion=2, epochs=1, batch_size=100, step=step)
    stage.train(settings, templates=template_set, output=tmp_path_factory.mktemp("sae"), on_metrics=lambda *_: None)
    assert len(samples) == 4  # both sides, after the epoch and at the end
    assert all((sample is not None) == (step == "fused") for sample in samples)
