"""How every SAE starts, what bounds it has, and what it learns without a gradient."""

import dataclasses

import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.terms import Competition, Loss, least_positive
from fsae_mlflow.sae.variants.batchtopk import BatchTopKSAE
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.sae.variants.settings import BatchTopKSettings, GatedSettings
from tests.sae.making import new_sae


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_start(variant: str) -> None:
    for d_sae in (8, 32):
        sae = new_sae(variant, 8, d_sae, k=3)
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(d_sae))
        norm = 1.0 if sae.competition is not None or d_sae == 8 else 0.5  # 2 d_in / d_sae, at most 1
        torch.testing.assert_close(sae.W_enc, norm * sae.W_dec)
        assert sae.scale == 1 and not sae.center.any() and not sae.b_dec.any() and not sae.density.any()
        assert not sae.normalize and not sae.untrained(16).normalize and sae.untrained(16).d_sae == 16
        zero = [name for name in sae.feature_parameters if name != "log_threshold"]
        assert not any(getattr(sae, name).any() for name in zero)


def test_a_batch_s_least_activation_moves_the_threshold_by_a_hundredth() -> None:
    sae = BatchTopKSAE(4, 8, BatchTopKSettings(k=2))
    torch.testing.assert_close(sae.firing_level(), -sae.b_enc)
    zero = torch.zeros(())
    loss = Loss(zero, zero, zero, torch.zeros(8, dtype=torch.long), torch.tensor(3.0), torch.zeros(2, 4))
    for least, expected in ((torch.inf, -1.0), (0.0, 0.0), (3.0, 0.03), (torch.inf, 0.03), (0.03, 0.03)):
        sae.after_step(dataclasses.replace(loss, least=torch.tensor(least)))
        assert float(sae.threshold) == pytest.approx(expected)
    torch.testing.assert_close(sae.firing_level(), 0.03 - sae.b_enc)
    torch.testing.assert_close(sae.saelens().tensors["threshold"], torch.full((8,), 0.03))
    sae.threshold.fill_(-1)
    assert not sae.saelens().tensors["threshold"].any()


def test_prefixes_double_up_to_all_features() -> None:
    assert new_sae("matryoshka", 4, 8, n_prefixes=4, k=1).prefixes == [1, 2, 4, 8]
    with pytest.raises(UserError, match="n_prefixes must be at most 4 for 8 features"):
        new_sae("matryoshka", 4, 8, n_prefixes=5, k=1)


def test_places_of_topk() -> None:
    assert new_sae("topk", 4, 8, k=8).competition == Competition(8, shared=False, k_aux=2)
    assert new_sae("batchtopk", 1, 8, k=2).competition == Competition(2, shared=True, k_aux=1)
    assert new_sae("topk", 4, 8, k=2, k_aux=3).competition == Competition(2, shared=False, k_aux=3)
    assert new_sae("topk", 4, 8, k=2, k_aux=3, aux_weight=0.0).competition == Competition(2, shared=False, k_aux=0)


def test_places_by_hand() -> None:
    scores = torch.tensor([[1.0, 4.0, 3.0], [7.0, 2.0, 6.0]])
    assert Competition(1, False, 0).topk_mask(scores).tolist() == [[False, True, False], [True, False, False]]
    assert Competition(1, True, 0).topk_mask(scores).tolist() == [[False, False, False], [True, False, True]]
    assert Competition(1, False, 2).dead_mask(scores).tolist() == [[False, True, True], [True, False, True]]
    assert Competition(1, False, 5).dead_mask(scores).all()
    assert least_positive(torch.tensor([0.0, -1.0, 3.0, 2.0])) == 2
    assert least_positive(torch.zeros(3)) == least_positive(torch.zeros(0)) == torch.inf


def test_templates_are_brought_to_unit_length_then_centered_then_scaled() -> None:
    sae = GatedSAE(2, 4, GatedSettings(), normalize=True, scale=2.0)
    sae.center.copy_(torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(sae.scaled(torch.tensor([[3.0, 4.0]])), torch.tensor([[1.0, 1.2]]))
    with torch.no_grad():
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]))
        sae.b_dec.copy_(torch.tensor([0.5, 0.0]))
    decoded = sae.decode(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))
    torch.testing.assert_close(decoded, torch.tensor([[1.5 / 2 + 0.1, 2 / 2 + 0.2]]))


def test_jumprelu_thresholds_move_down_to_half_a_window() -> None:
    sae = new_sae("jumprelu", 4, 8, bandwidth=0.02, initial_threshold=0.05)
    torch.testing.assert_close(sae.floor(), torch.full((8,), 0.04))
