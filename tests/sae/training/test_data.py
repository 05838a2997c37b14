"""Batches from memory and through a window."""

import tracemalloc

import numpy as np
import pytest
import torch

from fsae_mlflow.sae.training.data import TrainingData, fit_scaling
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.template_sets import TemplateWriter, face_row

ROWS = np.arange(400) % 5 > 0


def shuffled(data: TrainingData, seed: int) -> torch.Tensor:
    return torch.cat(list(data.batches(64, torch.Generator().manual_seed(seed))))


@pytest.mark.parametrize("max_bytes", [10**9, 64 * 100, 64 * 7])
def test_every_row_once_in_a_seeded_order(template_set: TemplateSet, max_bytes: int) -> None:
    data = TrainingData(template_set, ROWS, max_bytes)
    sizes = [len(batch) for batch in data.batches(64, torch.Generator().manual_seed(0))]
    assert sizes == [64] * 5
    expected = template_set.templates[ROWS]
    first, again, other = shuffled(data, 0), shuffled(data, 0), shuffled(data, 1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    np.testing.assert_array_equal(np.sort(first.numpy(), axis=0), np.sort(expected, axis=0))
    np.testing.assert_array_equal(torch.cat(list(data.in_order())).numpy(), expected)
    np.testing.assert_array_equal(data.sample(len(expected)).numpy(), expected)
    np.testing.assert_array_equal(data.sample(150).numpy(), expected[:: -(-len(expected) // 150)])


def test_a_set_larger_than_the_bound_stays_outside_memory(tmp_path, jpeg: bytes) -> None:
    n, width, bound = 6000, 256, 1_000_000
    with TemplateWriter(tmp_path / "large", width=width, metadata={}, shard_rows=500) as writer:
        rng = np.random.default_rng(0)
        for i in range(n):
            writer.write([face_row(f"{i // 2}/{i}", rng.normal(size=width), b"")])
    data = TrainingData(TemplateSet.open(tmp_path / "large"), np.ones(n, bool), bound)
    seen, last = 0, None
    import fsae_mlflow.sae.training.data as module

    # Torch's memory is outside tracemalloc's sight: count its window by its one allocation, NumPy's by tracing.
    tracemalloc.start()
    for batch in data.batches(64, torch.Generator().manual_seed(0)):
        seen, last = seen + len(batch), batch
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == n and last is not None
    assert peak < 4 * 500 * width * 4 < n * width * 4  # a few shards at most
    assert "templates" not in vars(data.templates)
    assert next(module.TrainingData._windows(data)).nbytes <= bound


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_scaling_brings_templates_to_unit_mean_square_and_back(
    template_set: TemplateSet, center: bool, normalize: bool
) -> None:
    sae = GatedSAE(16, 32, GatedSettings(), normalize=normalize)
    data = TrainingData(template_set, ROWS, 10**9)
    fit_scaling(sae, data, center=center)
    raw = data.sample(1000)
    x = sae.scaled(raw)
    assert float(x.square().sum(dim=1).mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(x.mean(dim=0), sae.b_dec.detach(), rtol=1e-4, atol=1e-5)
    assert bool(sae.center.any()) == center
    estimate = sae.decode(torch.zeros(1, 32)).detach()[0]
    expected = torch.nn.functional.normalize(raw, dim=1) if normalize else raw
    torch.testing.assert_close(estimate, expected.mean(dim=0), rtol=1e-4, atol=1e-4)


def test_a_shard_without_rows_of_the_side_gives_no_batch(template_set: TemplateSet) -> None:
    rows = np.arange(400) >= 150  # the first shard is the other side's
    batches = list(TrainingData(template_set, rows, 64 * 100).in_order())
    assert sum(map(len, batches)) == 250 and min(map(len, batches)) > 0
