import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsae_mlflow.features.density import clusters, densities, survey
from fsae_mlflow.sae.variants.gated import GatedSAE


def hand_set_sae() -> GatedSAE:
    """Four features on two dimensions: +x, −x, +y above one half, and one that never fires."""
    sae = GatedSAE(2, 4, scale=0.5)
    with torch.no_grad():
        sae.W_enc.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        sae.W_dec.copy_(sae.W_enc)
        sae.b_gate.copy_(torch.tensor([0.0, 0.0, -0.5, -100.0]))
    return sae.eval().requires_grad_(False)


TEMPLATES = np.array([[2, 0], [4, 2], [-2, 4], [6, 0.5]], dtype=np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_survey_counts_what_a_hand_set_sae_fires(batch_size: int) -> None:
    found = survey(hand_set_sae(), TEMPLATES, batch_size=batch_size)
    assert found.counts.tolist() == [3, 1, 2, 0]
    assert found.maxima.tolist() == [3, 1, 2, 0]
    assert found.sums.tolist() == [6, 1, 3, 0]
    assert found.alive == 0.75


def test_mean_l0_is_the_sum_of_densities() -> None:
    sae = GatedSAE(8, 64)
    templates = np.random.default_rng(0).normal(size=(37, 8)).astype(np.float32)
    found = survey(sae, templates, batch_size=10)
    fired = (sae.encode(torch.from_numpy(templates)) > 0).sum(dim=1).double().mean()
    assert found.l0 == pytest.approx(float(fired), rel=1e-12)
    assert found.density.sum() == pytest.approx(found.l0, rel=1e-12)
    np.testing.assert_array_equal(densities(sae, templates, batch_size=7), found.density)


def test_templates_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="3 wide"):
        survey(hand_set_sae(), np.zeros((1, 3), np.float32))


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        survey(hand_set_sae(), np.zeros((0, 2), np.float32))


def test_the_papers_clusters_are_found() -> None:
    generator = np.random.default_rng(0)
    n = 3_200_000
    density = np.zeros(65_536)
    density[:451] = generator.uniform(0.40, 0.48, size=451)
    density[451:25_979] = generator.geometric(0.2, size=25_979 - 451).clip(1, 20) / n
    found = clusters(density)
    assert found.separated
    assert found.high.sum() == 451 and found.high[:451].all()
    assert found.low.sum() == 25_979 - 451
    assert found.n_dead == 65_536 - 25_979
    assert 20 / n < found.split < 0.40


def test_overlapping_clusters_are_split_at_their_valley() -> None:
    generator = np.random.default_rng(1)
    density = 10 ** np.concatenate([generator.normal(-4, 0.4, 3000), generator.normal(-1.5, 0.3, 500).clip(max=-0.01)])
    found = clusters(density)
    assert found.separated
    assert -3.2 < np.log10(found.split) < -2.0


@pytest.mark.parametrize("n", [400, 14_729])
def test_small_counts_alone_make_no_clusters(n: int) -> None:
    counts = np.random.default_rng(0).geometric(0.3, size=4096)
    found = clusters(counts / n)
    assert not found.separated
    assert found.low.any() and found.high.any()


def test_one_normal_hump_has_no_valley() -> None:
    density = 10 ** np.random.default_rng(0).normal(-2, 0.5, 4096).clip(max=-0.01)
    assert not clusters(density).separated


def test_otsu_is_the_brute_force_best_cut() -> None:
    density = 10 ** np.random.default_rng(3).normal(-2, 0.3, 60).clip(max=-0.01)
    found = clusters(density)
    logs = np.sort(np.log10(density))
    spread = [logs[:cut].var() * cut + logs[cut:].var() * (60 - cut) for cut in range(1, 60)]
    assert not found.separated
    assert found.low.sum() == 1 + int(np.argmin(spread))


@given(
    st.lists(st.integers(0, 400), min_size=2, max_size=80).filter(lambda counts: sum(count > 0 for count in counts) > 1)
)
def test_every_feature_is_low_high_or_dead(counts: list[int]) -> None:
    density = np.array(counts) / 400
    found = clusters(density)
    assert not (found.low & found.high).any()
    assert found.low.sum() + found.high.sum() + (density == 0).sum() == len(density)
    assert density[found.low].max(initial=0) <= found.split
    assert (density[found.high] > found.split).all()


def test_nothing_alive_is_refused() -> None:
    with pytest.raises(ValueError, match="0 of 5 features"):
        clusters(np.zeros(5))
