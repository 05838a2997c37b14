"""Every variant's loss against its formula in NumPy, its gradient against differences of that formula."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import load_sae, save_sae
from fsae_mlflow.sae.variants.registry import VARIANTS
from tests.sae.making import new_sae, train_settings

LAM, D_IN, D_SAE, BATCH, K = 0.3, 5, 16, 7, 3
DEAD = np.arange(D_SAE) % 3 == 0
Arrays = dict[str, np.ndarray]


def make(variant: str) -> SparseAutoencoder:
    torch.manual_seed(0)
    sae = new_sae(variant, D_IN, D_SAE, lam=LAM, k=K, bandwidth=0.1, n_prefixes=3).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return sae


def batch() -> torch.Tensor:
    return torch.randn(BATCH, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def activations(w: Arrays, x: np.ndarray) -> np.ndarray:
    return np.maximum((x - w["b_dec"]) @ w["W_enc"].T + w["b_enc"], 0)


def only_largest(values: np.ndarray, k: int) -> np.ndarray:
    kept = np.zeros_like(values)
    for row, source in zip(kept, values, strict=True):
        chosen = np.argsort(source)[::-1][:k]
        row[chosen] = source[chosen]
    return kept


def squared(x: np.ndarray) -> float:
    return float((x**2).sum(axis=1).mean())


def relu_loss(w: Arrays, x: np.ndarray, still: Arrays) -> dict[str, float]:
    f = activations(w, x)
    norms = np.sqrt((w["W_dec"] ** 2).sum(axis=1))
    return {
        "reconstruction": squared(x - f @ w["W_dec"] - w["b_dec"]),
        "sparsity": LAM * float((f * norms).sum()) / len(x),
    }


def topk_loss(w: Arrays, x: np.ndarray, still: Arrays) -> dict[str, float]:
    return family_loss(w, x, still, only_largest(activations(w, x), K), [D_SAE])


def batchtopk_loss(w: Arrays, x: np.ndarray, still: Arrays) -> dict[str, float]:
    f = only_largest(activations(w, x).reshape(1, -1), K * len(x)).reshape(len(x), -1)
    return family_loss(w, x, still, f, [D_SAE])


def matryoshka_loss(w: Arrays, x: np.ndarray, still: Arrays) -> dict[str, float]:
    f = only_largest(activations(w, x).reshape(1, -1), K * len(x)).reshape(len(x), -1)
    return family_loss(w, x, still, f, [D_SAE // 4, D_SAE // 2, D_SAE])


def family_loss(w: Arrays, x: np.ndarray, still: Arrays, f: np.ndarray, prefixes: list[int]) -> dict[str, float]:
    """`still` is the SAE at the point where the gradient is taken: the auxiliary term's x − x̂ does not move."""
    errors = [x - f[:, :m] @ w["W_dec"][:m] - w["b_dec"] for m in prefixes]
    f_still = f if still is w else still["f"]
    if still is w:
        w["f"] = f
    error = x - f_still @ still["W_dec"] - still["b_dec"]
    estimate = only_largest(activations(w, x)[:, DEAD], D_IN // 2) @ w["W_dec"][DEAD]
    return {"reconstruction": float(np.mean([squared(e) for e in errors])), "auxiliary": squared(error - estimate) / 32}


FORMULAS: dict[str, Callable[[Arrays, np.ndarray, Arrays], dict[str, float]]] = {
    "relu": relu_loss,
    "topk": topk_loss,
    "batchtopk": batchtopk_loss,
    "matryoshka": matryoshka_loss,
}


@pytest.mark.parametrize("variant", FORMULAS)
def test_loss_and_gradients_follow_the_formula(variant: str) -> None:
    sae, x = make(variant), batch()
    loss = sae.loss(x, dead=torch.from_numpy(np.flatnonzero(DEAD)))
    loss.total.backward()
    w = {name: parameter.detach().numpy().copy() for name, parameter in sae.named_parameters()}
    formula = FORMULAS[variant]
    expected = formula(w, x.numpy(), w)
    for term, value in loss.as_floats().items():
        assert value == pytest.approx(
            sum(expected.values()) if term == "total" else expected.get(term, 0.0), rel=1e-10
        ), term
    step = 1e-6
    for name, parameter in sae.named_parameters():
        differences = np.zeros_like(w[name])
        for index in np.ndindex(*differences.shape):
            sides = []
            for sign in (1, -1):
                moved = {key: array.copy() for key, array in w.items()}
                moved[name][index] += sign * step
                sides.append(sum(formula(moved, x.numpy(), w).values()))
            differences[index] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(parameter.grad.numpy(), differences, rtol=1e-5, atol=1e-7, err_msg=name)


def test_jumprelu_learns_its_threshold_in_a_window() -> None:
    sae, x = make("jumprelu"), batch()
    with torch.no_grad():
        sae.log_threshold.fill_(np.log(0.3))
    loss = sae.loss(x)
    loss.total.backward()
    w = {name: parameter.detach().numpy() for name, parameter in sae.named_parameters()}
    z, theta, width = (x.numpy() - w["b_dec"]) @ w["W_enc"].T + w["b_enc"], np.exp(w["log_threshold"]), 0.1
    f = z * (z > theta)
    error = f @ w["W_dec"] + w["b_dec"] - x.numpy()
    assert loss.as_floats()["reconstruction"] == pytest.approx(squared(error), rel=1e-10)
    assert loss.as_floats()["sparsity"] == pytest.approx(LAM * (z > theta).sum() / BATCH, rel=1e-10)
    to_f = 2 / BATCH * error @ w["W_dec"].T
    window = np.abs(z - theta) < width / 2
    assert window.any()
    to_theta = (-theta / width * window * to_f - LAM / BATCH / width * window).sum(axis=0)
    np.testing.assert_allclose(sae.log_threshold.grad.numpy(), to_theta * theta, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(sae.b_enc.grad.numpy(), (to_f * (z > theta)).sum(axis=0), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_and_loaded_gives_identical_outputs(variant: str, tmp_path) -> None:
    sae = make(variant).float().eval()
    sae.center.normal_()
    x = batch().float()
    if "threshold" in dict(sae.named_buffers()):
        sae.threshold.fill_(0.2)
    save_sae(sae, tmp_path / "sae", settings={}, templates={})
    loaded = load_sae(tmp_path / "sae")
    assert loaded.hyperparameters == sae.hyperparameters
    assert torch.equal(loaded.encode(x), sae.encode(x)) and torch.equal(loaded(x), sae(x))
    fires = sae.encode(x) > 0
    agree = (sae.gate_preactivation(x) > 0) == fires
    assert bool((agree | ~fires).all())
    if variant not in ("topk",):
        assert bool(agree.float().mean() > 0.8)


def test_top_k_fires_k_and_batch_top_k_learns_its_threshold() -> None:
    sae, x = make("topk").float(), batch().float()
    assert ((sae.features(x) > 0).sum(dim=1) <= K).all()
    batched = make("batchtopk").float()
    assert float(batched.threshold) == -1
    loss = batched.loss(x)
    batched.after_step(loss)
    # From one batch the threshold is the least that fired: in use exactly that one entry no longer fires.
    assert int((batched.features(x) > 0).sum()) == K * BATCH - 1
    batched.after_step(loss)
    assert float(batched.threshold) == pytest.approx(float(loss.least))


def test_auxiliary_loss_teaches_dead_features_only() -> None:
    sae, x = make("topk"), batch()
    sae.loss(x, dead=torch.from_numpy(np.flatnonzero(DEAD))).auxiliary.backward()
    moved = sae.W_dec.grad.abs().sum(dim=1) > 0
    assert moved.any() and not moved[~torch.from_numpy(DEAD)].any()


@pytest.mark.parametrize("variant", FORMULAS)
def test_a_step_reads_nothing_from_the_device(variant: str) -> None:
    sae, x = make(variant).to("meta"), batch().to("meta")  # where a read is an error
    loss = sae.loss(x, dead=torch.arange(3, device="meta"))
    loss.total.backward()
    sae.after_step(loss)


def test_settings_that_no_variant_can_follow_are_refused() -> None:
    with pytest.raises(ValueError, match="k must be at most the number of features, 8; it is 9"):
        new_sae("topk", 4, 8, k=9)
    sentence = "decoder_norm is a parameter of variant gated, relu, and variant is topk; leave decoder_norm out"
    with pytest.raises(ValueError, match=sentence):
        train_settings(variant="topk", decoder_norm="weighted")


def test_every_threshold_starts_at_the_initial_one() -> None:
    sae = new_sae("jumprelu", 4, 8, initial_threshold=0.03)
    torch.testing.assert_close(sae.firing_level(), torch.full((8,), 0.03))
