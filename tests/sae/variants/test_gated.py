"""The gated SAE against its equations, written out once more in NumPy."""

import numpy as np
import pytest
import torch

from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.steps.trainer import Trainer
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings
from fsae_mlflow.templates.set import TemplateSet
from tests.sae.making import train_settings

LAM, D_IN, D_SAE, BATCH = 0.3, 5, 12, 7
RELATIVE = 1e-10


@pytest.fixture
def sae() -> GatedSAE:
    torch.manual_seed(0)
    sae = GatedSAE(D_IN, D_SAE, GatedSettings(lam=LAM)).double()
    with torch.no_grad():
        for name in ("W_enc", "r_mag", "b_gate", "b_mag", "b_dec"):
            parameter = getattr(sae, name)
            parameter.add_(0.3 * torch.randn_like(parameter))
    return sae


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(BATCH, D_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def reference(sae: GatedSAE, x: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Loss terms and gradients by hand from Rajamanoharan et al. 2024, section 3.2."""
    w, d, r, b_gate, b_mag, b = (
        getattr(sae, name).detach().numpy() for name in ("W_enc", "W_dec", "r_mag", "b_gate", "b_mag", "b_dec")
    )
    n = len(x)
    projected = (x - b) @ w.T
    pi_gate, pi_mag = projected + b_gate, np.exp(r) * projected + b_mag
    gate = np.maximum(pi_gate, 0)
    f = (pi_gate > 0) * np.maximum(pi_mag, 0)
    error, error_frozen = f @ d + b - x, gate @ d + b - x
    losses = {
        "reconstruction": (error**2).sum() / n,
        "sparsity": LAM * gate.sum() / n,
        "auxiliary": (error_frozen**2).sum() / n,
    }
    to_mag = 2 / n * (error @ d.T) * (pi_gate > 0) * (pi_mag > 0)
    to_gate = (LAM / n + 2 / n * error_frozen @ d.T) * (pi_gate > 0)
    to_projected = to_mag * np.exp(r) + to_gate
    return losses, {
        "W_enc": to_projected.T @ (x - b),
        "W_dec": 2 / n * f.T @ error,
        "r_mag": (to_mag * np.exp(r) * projected).sum(axis=0),
        "b_gate": to_gate.sum(axis=0),
        "b_mag": to_mag.sum(axis=0),
        "b_dec": 2 / n * error.sum(axis=0) - to_projected.sum(axis=0) @ w,
    }


def test_loss_and_gradients_follow_the_equations(sae: GatedSAE, x: torch.Tensor) -> None:
    losses, gradients = reference(sae, x.numpy())
    loss = sae.loss(x)
    loss.total.backward()
    for term, expected in losses.items():
        assert float(getattr(loss, term).detach()) == pytest.approx(expected, rel=RELATIVE)
    for name, expected in gradients.items():
        np.testing.assert_allclose(getattr(sae, name).grad.numpy(), expected, rtol=RELATIVE, atol=1e-14, err_msg=name)


def test_one_optimizer_step_is_adamw_on_the_tangent_then_unit_norm(
    sae: GatedSAE, x: torch.Tensor, template_set: TemplateSet
) -> None:
    settings = train_settings(lam=LAM, batch_size=BATCH, epochs=10, lr=1e-2, weight_decay=0.1)
    before = {name: parameter.detach().numpy().copy() for name, parameter in sae.named_parameters()}
    _, gradients = reference(sae, x.numpy())
    Trainer(settings, sae, TrainingData(template_set, np.ones(400, bool), 10**9)).run_step(x)

    along = (gradients["W_dec"] * before["W_dec"]).sum(axis=1, keepdims=True)
    gradients["W_dec"] = gradients["W_dec"] - along * before["W_dec"]
    for name, parameter in sae.named_parameters():
        gradient, decay = gradients[name], 0.1 if before[name].ndim > 1 else 0.0
        # After one step AdamW's bias-corrected moments are the gradient and its square.
        expected = before[name] * (1 - 1e-2 * decay) - 1e-2 * gradient / (np.sqrt(gradient**2) + 1e-8)
        if name == "W_dec":
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=RELATIVE, atol=1e-13, err_msg=name)


def test_hand_set_features() -> None:
    sae = GatedSAE(2, 3, GatedSettings())
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        sae.b_gate.copy_(torch.tensor([-0.5, 0.0, 0.0]))
        sae.b_mag.copy_(torch.tensor([0.0, 0.25, 0.0]))
        sae.r_mag.zero_()
        sae.scale.fill_(0.5)
    templates = torch.tensor([[4.0, 2.0], [0.8, -1.0], [-2.0, 0.0]])
    # Scaled: (2, 1), (0.4, -0.5), (-1, 0). The gate of feature 0 opens above 0.5 only.
    expected = torch.tensor([[2.0, 1.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(sae.encode(templates), expected)
    torch.testing.assert_close(sae(templates), torch.tensor([[4.0, 2.5], [0.0, 0.0], [-2.0, 0.0]]))


def test_auxiliary_term_leaves_the_decoder_alone(sae: GatedSAE, x: torch.Tensor) -> None:
    with torch.no_grad():
        sae.W_enc.zero_()  # then nothing reaches b_dec through the encoder either
    sae.loss(x).auxiliary.backward()
    assert sae.W_dec.grad is None
    assert sae.b_dec.grad is None or not sae.b_dec.grad.any()
    assert sae.b_gate.grad.any()


def test_the_start_is_sane_at_the_papers_size() -> None:
    torch.manual_seed(0)
    sae = GatedSAE(64, 128 * 64, GatedSettings())
    x = torch.nn.functional.normalize(torch.randn(256, 64), dim=1)
    features = sae.features(x)
    assert float((features > 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float((x - features @ sae.W_dec).detach().square().sum(dim=1).mean()) < 0.1


def test_refuses_templates_of_another_width(sae: GatedSAE) -> None:
    with pytest.raises(ValueError, match=r"Template width 8 differs from the SAE's d_in 5; use templates"):
        sae.encode(torch.zeros(2, 8))
