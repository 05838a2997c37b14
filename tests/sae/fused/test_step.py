"""The fused step against plain PyTorch: the same losses, gradients and weights, at any density."""

import copy

import pytest
import torch

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.fused import blocks, entries, kernels
from fsae_mlflow.sae.fused.step import FusedStep
from fsae_mlflow.sae.optimizer import AdamW
from tests.sae.making import TRAINED, firing_sae

D_IN, D_SAE, BATCH, LAM = 24, 1024, 64, 0.3
CASES = [
    *[(variant, {}) for variant in TRAINED],
    ("gated", {"decoder_norm": "weighted"}),
    ("relu", {"decoder_norm": "held"}),
]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "BLOCK_ENTRIES", 200 * BATCH)


def make(variant: str, density: float, dtype: torch.dtype, **options: object) -> tuple[SparseAutoencoder, torch.Tensor]:
    """An autoencoder of which about `density` of all entries are above the floor on the batch beside it."""
    x = torch.nn.functional.normalize(torch.randn(BATCH, D_IN, generator=torch.Generator().manual_seed(2)), dim=1)
    sae = firing_sae(variant, x, D_SAE, density=density, lam=LAM, **options)
    return sae.to(dtype), x.to(dtype)


def some_dead() -> torch.Tensor:
    return (torch.rand(D_SAE, generator=torch.Generator().manual_seed(1)) < 0.3).nonzero().squeeze(1)


def plain_step(sae: SparseAutoencoder, optimizer: AdamW, x: torch.Tensor, dead: torch.Tensor) -> dict[str, float]:
    loss = sae.loss(x, sparsity_weight=LAM / 2, dead=dead)
    loss.total.backward()
    sae.remove_parallel_gradient()
    optimizer.step()
    sae.normalize_decoder()
    return loss.as_floats() | {"fired": float(loss.fired.sum()), "least": float(loss.least)}


def fused_step(sae: SparseAutoencoder, optimizer: AdamW, x: torch.Tensor, dead: torch.Tensor) -> dict[str, float]:
    step = FusedStep(sae, optimizer)
    loss = step.forward(x, sparsity_weight=LAM / 2, dead=dead)
    step.update()
    return loss.as_floats() | {"fired": float(loss.fired.sum()), "least": float(loss.least)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.001, 0.05, 0.5])
@pytest.mark.parametrize(("variant", "options"), CASES)
def test_fused_equals_plain(variant: str, options: dict[str, object], density: float, dtype: torch.dtype) -> None:
    sae, x = make(variant, density, dtype, **options)
    dead = some_dead()
    outcomes = []
    for step in (plain_step, fused_step):
        own = copy.deepcopy(sae)
        optimizer = AdamW.of(own, lr=1e-3, betas=(0.0, 0.999), weight_decay=0.1)
        metrics = step(own, optimizer, x, dead)
        # With β1 = 0 the first moment is the gradient itself.
        gradients = {name: optimizer.state[p]["exp_avg"] for name, p in own.named_parameters()}
        outcomes.append((metrics, gradients, own.state_dict()))
    (metrics, gradients, weights), (fused_metrics, fused_gradients, fused_weights) = outcomes
    relative = 1e-5 if dtype == torch.float32 else 1e-11
    assert fused_metrics.pop("least") == pytest.approx(metrics.pop("least"), abs=1e-6)
    assert fused_metrics == pytest.approx(metrics, rel=relative)
    for name, gradient in gradients.items():
        assert float((fused_gradients[name] - gradient).norm()) <= relative * float(gradient.norm()), name
    if dtype == torch.float64:
        for name, tensor in weights.items():
            torch.testing.assert_close(fused_weights[name], tensor, rtol=1e-6, atol=1e-9, msg=name)


def test_density_decides_block_by_block() -> None:
    sae, x = make("gated", 0.05, torch.float32)
    with torch.no_grad():
        sae.b_gate[:200] += 100  # these fire always
    kinds = [type(block) for block in entries.above_floor(sae, (x - sae.b_dec).detach(), screened=False)]
    assert kinds == [blocks.DenseBlock] + 5 * [blocks.SparseBlock]


@pytest.mark.parametrize("density", [0.001, 0.05])
def test_screening_finds_the_same_entries(density: float) -> None:
    sae, x = make("gated", density, torch.float32)
    centered = (x - sae.b_dec).detach()
    with torch.no_grad():
        exact, screened = (list(entries.above_floor(sae, centered, screened=screened)) for screened in (False, True))
    for one, other in zip(exact, screened, strict=True):
        assert (one.indptr == other.indptr).all() and (one.rows == other.rows).all()
        torch.testing.assert_close(one.p, other.p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("density", [0.02, 0.5])
@pytest.mark.parametrize("variant", ["gated", "jumprelu", "batchtopk"])
def test_number_of_threads_changes_nothing(variant: str, density: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one bit; only the matrix library, which keeps one thread here, may add in another order."""
    results, pools = [], []
    threads = kernels._threads
    monkeypatch.setattr(kernels, "_threads", lambda n: pools.append(n) or threads(n))
    for n_threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        sae, x = make(variant, density, torch.float32)
        optimizer = AdamW.of(sae, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
        metrics = fused_step(sae, optimizer, x, some_dead())
        results.append((metrics, sae.state_dict()))
    assert set(pools) == {3}
    (metrics, weights), (other_metrics, other_weights) = results
    assert metrics == other_metrics
    for name, tensor in weights.items():
        assert torch.equal(other_weights[name], tensor), name


@pytest.mark.parametrize("often", [slice(0, 200), slice(200, 400), slice(800, D_SAE)])
def test_dense_blocks_among_sparse_ones_are_kept(often: slice) -> None:
    sae, x = make("gated", 0.05, torch.float32)
    with torch.no_grad():
        sae.b_gate[often] += 100
    own = copy.deepcopy(sae)
    optimizers = [AdamW.of(one, lr=1e-3, betas=(0.0, 0.999), weight_decay=0.1) for one in (sae, own)]
    metrics = plain_step(sae, optimizers[0], x, some_dead())
    assert fused_step(own, optimizers[1], x, some_dead()) == pytest.approx(metrics, rel=1e-5)
    kinds = [type(block) for block in entries.joined(entries.above_floor(sae, x, screened=False), sae.prefixes)]
    assert kinds.count(blocks.DenseBlock) >= 1 and len(kinds) <= 3
