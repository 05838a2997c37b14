"""The encoder that computes active entries only, against plain PyTorch."""

import numpy as np
import pytest
import torch

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused import blocks, encoder, entries
from fsae_mlflow.sae.fused.encoder import Encoder
from fsae_mlflow.sae.sparse import DenseEncoder, SparseEncoder, sparse_encoder
from fsae_mlflow.sae.terms import TERMS
from fsae_mlflow.sae.variants.registry import VARIANTS
from tests.sae.making import firing_sae, new_sae

D_IN, D_SAE, BATCH = 64, 512, 150
CASES = [*[(variant, {}) for variant in VARIANTS], ("gated", {"decoder_norm": "weighted"})]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BLOCK_ENTRIES", 100 * BATCH)
    monkeypatch.setattr(encoder, "SCREENED_FROM", 1)


def templates_of_rank(rank: int, seed: int = 0) -> torch.Tensor:
    """Templates that vary in `rank` directions, and a hundredth as much in all others."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(BATCH, rank, generator=generator) @ torch.randn(rank, D_IN, generator=generator)
    return torch.nn.functional.normalize(made + 0.01 * torch.randn(BATCH, D_IN, generator=generator), dim=1)


ISOTROPIC, LOW_RANK = templates_of_rank(D_IN), templates_of_rank(20)


def assert_equal(found: Entries, features: torch.Tensor) -> None:
    expected = Entries.of(features.numpy())
    assert found.n_rows == expected.n_rows and len(found.rows) > 0
    np.testing.assert_array_equal(found.indptr, expected.indptr)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-4, atol=1e-6)


def assert_same_bits(found: Entries, expected: Entries) -> None:
    for name in ("indptr", "rows", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def made(sae: SparseAutoencoder, kind: str, x: torch.Tensor) -> SparseEncoder:
    return DenseEncoder(sae) if kind == "dense" else Encoder(sae, sae.scaled(x))


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("density", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("templates", [ISOTROPIC, LOW_RANK, LOW_RANK[:1]], ids=["isotropic", "low_rank", "one"])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_entries_are_the_features(variant: str, templates: torch.Tensor, density: float, kind: str) -> None:
    sae = firing_sae(variant, templates, D_SAE, density=density)
    found = made(sae, kind, templates)
    features = sae.encode(templates)
    assert_equal(found.entries(templates), features)
    torch.testing.assert_close(found.decoded(found.entries(templates)), features @ sae.W_dec + sae.b_dec)


@torch.no_grad()
def test_raw_templates_are_scaled_first() -> None:
    sae = firing_sae("relu", LOW_RANK, D_SAE, density=0.02, normalize=True)
    sae.scale.fill_(1.5)
    sae.center.fill_(0.01)
    raw = LOW_RANK * torch.linspace(1, 9, BATCH)[:, None]
    assert_equal(sparse_encoder(sae, raw).entries(raw), sae.encode(raw))


@torch.no_grad()
def test_templates_of_few_dimensions_are_sifted_in_few() -> None:
    sae = firing_sae("gated", LOW_RANK, D_SAE, density=0.01)
    directions = Encoder(sae, LOW_RANK).directions
    assert directions is not None and directions.shape == (D_IN, 48)
    torch.testing.assert_close(directions.T @ directions, torch.eye(48), rtol=0, atol=1e-5)
    assert float((LOW_RANK - sae.b_dec - (LOW_RANK - sae.b_dec) @ directions @ directions.T).norm(dim=1).max()) < 0.05
    assert Encoder(firing_sae("gated", ISOTROPIC, D_SAE, density=0.3), ISOTROPIC).directions is None


@torch.no_grad()
def test_bounds_hold_for_templates_unlike_the_sample() -> None:
    sae = firing_sae("gated", LOW_RANK, D_SAE, density=0.01)
    found = Encoder(sae, LOW_RANK)
    assert found.directions is not None
    centered = ISOTROPIC - sae.b_dec
    bounds = found.weights.double() @ found._bounded(centered).double().T
    exact = sae.W_enc.double() @ centered.double().T
    assert bool((bounds > exact).all())
    assert_equal(found.entries(ISOTROPIC), sae.encode(ISOTROPIC))


@pytest.mark.parametrize("factor", [0.0, 1.0, 1.2, 100.0])
@torch.no_grad()
def test_topk_looks_again_where_the_limit_hides_some(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sae = firing_sae("topk", LOW_RANK, D_SAE, density=0.02)
    limits, winners, looked = Encoder._limits, Encoder._winners, []
    raised = np.where(np.arange(BATCH) % 3, factor, 1).astype(np.float32)
    monkeypatch.setattr(Encoder, "_limits", lambda self, *given: limits(self, *given) * raised)
    monkeypatch.setattr(
        Encoder, "_winners", lambda self, x, *given: (looked.append(len(x)), winners(self, x, *given))[1]
    )
    for x in (LOW_RANK, ISOTROPIC):
        assert_equal(Encoder(sae, LOW_RANK).entries(x), sae.encode(x))
    if factor == 100:
        assert looked == 2 * [BATCH, BATCH * 2 // 3]
    elif factor == 0:
        assert looked[0] == BATCH and sum(looked) <= 2.2 * BATCH


@torch.no_grad()
def test_topk_finds_fewer_than_k_where_fewer_are_positive() -> None:
    sae = firing_sae("topk", LOW_RANK, D_SAE, density=0.02)
    sae.b_enc[15:] -= 100
    found = Encoder(sae, LOW_RANK).entries(LOW_RANK)
    assert_equal(found, sae.encode(LOW_RANK))
    assert (found.per_row() < 10).any()


@torch.no_grad()
def test_a_template_equal_to_the_bias_has_the_largest_biases() -> None:
    """Its bounds are as large as its projections: zero."""
    sae = firing_sae("topk", LOW_RANK, D_SAE, density=0.02)
    x = sae.b_dec[None].clone()
    assert_equal(Encoder(sae, LOW_RANK).entries(x), sae.encode(x))


@torch.no_grad()
def test_of_equal_activations_those_of_the_lower_features_fire() -> None:
    sae = new_sae("topk", D_IN, D_SAE, k=3)
    sae.W_enc.copy_(sae.W_enc[:1].expand_as(sae.W_enc))
    found = Encoder(sae, LOW_RANK).entries(LOW_RANK)
    firing = int((LOW_RANK @ sae.W_enc[0] > 0).sum())
    assert found.counts.tolist() == [firing] * 3 + [0] * (D_SAE - 3)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_entries_do_not_depend_on_batch_or_sample(variant: str) -> None:
    sae = firing_sae(variant, LOW_RANK, D_SAE, density=0.02)
    found = Encoder(sae, LOW_RANK)
    whole = found.entries(LOW_RANK)
    for size in (1, 7, 64):
        assert_same_bits(Entries.joined([found.entries(batch) for batch in LOW_RANK.split(size)]), whole)
    assert_same_bits(Encoder(sae, templates_of_rank(9, seed=1)).entries(LOW_RANK), whole)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_dead_features_have_no_entries(variant: str) -> None:
    sae = firing_sae(variant, LOW_RANK, D_SAE, density=0.02)
    bias = sae.b_gate if variant == "gated" else sae.b_enc
    bias[100:300] = -1e6
    found = Encoder(sae, LOW_RANK)
    assert_equal(found.entries(LOW_RANK), sae.encode(LOW_RANK))
    assert not found.entries(LOW_RANK).counts[100:300].any()
    bias.fill_(-1e6)
    found = Encoder(sae, LOW_RANK)
    nothing = found.entries(LOW_RANK)
    assert len(nothing.rows) == len(nothing.values) == 0 and nothing.counts.shape == (D_SAE,)
    torch.testing.assert_close(found.decoded(nothing), sae.b_dec.expand(BATCH, -1))
    assert not found.loss(LOW_RANK).counts.any()


@pytest.mark.parametrize("density", [0.005, 0.05, 0.5])
@pytest.mark.parametrize("x", [ISOTROPIC, LOW_RANK[:1]], ids=["many", "one"])
@pytest.mark.parametrize(("variant", "own"), CASES)
@torch.no_grad()
def test_loss_is_the_plain_one_in_use(variant: str, own: dict[str, object], x: torch.Tensor, density: float) -> None:
    sae = firing_sae(variant, x, D_SAE, density=density, lam=0.3, **own)
    if variant == "gated":
        sae.b_mag.sub_(0.1)  # some gates are open where nothing fires
    found, expected = Encoder(sae, x).loss(x), sae.loss(x, training=False)
    assert found.as_floats() == pytest.approx(expected.as_floats(), rel=1e-5)
    assert list(found.as_floats()) == list(TERMS)
    assert torch.equal(found.counts, expected.counts) and int(found.counts.sum()) > 0
    assert torch.equal(found.counts, (sae.features(x) > 0).sum(dim=0))
    torch.testing.assert_close(found.x_hat, expected.x_hat)
    torch.testing.assert_close(found.x_hat, sae.features(x) @ sae.W_dec + sae.b_dec)


@torch.no_grad()
def test_features_that_fire_often_are_measured_densely() -> None:
    sae = firing_sae("gated", ISOTROPIC, D_SAE, density=0.02)
    sae.b_gate[:100] += 100
    found = Encoder(sae, ISOTROPIC)._blocks(ISOTROPIC - sae.b_dec, dense=True)
    assert [(type(block), block.first, block.last) for block in found] == [
        (blocks.DenseBlock, 0, 100),
        (blocks.SparseBlock, 100, D_SAE),
    ]


def test_an_sae_on_the_cpu_gets_the_sparse_encoder() -> None:
    sae = new_sae("gated", 8, 16)
    assert isinstance(sparse_encoder(sae, torch.randn(5, 8)), Encoder)
    assert isinstance(sparse_encoder(sae.to("meta"), torch.randn(5, 8, device="meta")), DenseEncoder)
