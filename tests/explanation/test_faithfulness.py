import numpy as np
import pytest
import torch
from torch import Tensor

from fsae_mlflow.explanation.contributions import Decoder, contributions
from fsae_mlflow.explanation.faithfulness.bootstrap import interval_of_mean
from fsae_mlflow.explanation.faithfulness.deletion import EXPLANATION, ORDERS, SHARES, deletion
from fsae_mlflow.explanation.faithfulness.hiding import OWN, hiding, top_share
from fsae_mlflow.explanation.saliency import blurred, saliency_maps, smoothed
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import ReluSettings

SIZE, N_SQUARES = 64, 4
FACES = torch.from_numpy(np.random.default_rng(0).random((3, 3, SIZE, SIZE), dtype=np.float32))
SQUARE = SIZE // N_SQUARES


def embed(faces: Tensor) -> Tensor:
    """How rough each of 16 squares of a face is: blurring a square lowers its number."""
    rough = (faces - blurred(faces)).square().mean(dim=1)
    return torch.nn.functional.avg_pool2d(rough, SQUARE).flatten(1)


def one_to_one(d: int) -> SparseAutoencoder:
    """Feature i is the template's number i."""
    sae = untrained(ReluSettings(lam=0.0), d, d).eval().requires_grad_(False)
    sae.W_enc.copy_(torch.eye(d))
    sae.W_dec.copy_(torch.eye(d))
    return sae


def test_a_map_lies_where_the_feature_looks() -> None:
    features = [0, 5, 15]
    maps = saliency_maps(FACES[0], features, embed=embed, sae=one_to_one(N_SQUARES**2), noise=0.01, n_copies=20, seed=0)
    assert maps.shape == (3, SIZE, SIZE) and maps.amin() >= 0
    for feature, heat in zip(features, maps, strict=True):
        row, column = divmod(feature, N_SQUARES)
        inside = heat[row * SQUARE : (row + 1) * SQUARE, column * SQUARE : (column + 1) * SQUARE]
        assert inside.max() == heat.max() == 1
        assert inside.sum() > 0.6 * heat.sum()


def test_maps_are_the_same_again_and_average_all_copies() -> None:
    def made(**changed: float) -> Tensor:
        given = {"noise": 0.3, "n_copies": 20, "seed": 1} | changed
        return saliency_maps(FACES[1], [3], embed=embed, sae=one_to_one(N_SQUARES**2), **given)

    torch.testing.assert_close(made(), made())
    for changed in ({"seed": 2}, {"n_copies": 16}, {"noise": 0.1}):
        assert not torch.allclose(made(), made(**changed))
    assert torch.equal(smoothed(torch.full((1, 64, 64), -1.0)), torch.zeros(1, 64, 64))


def test_hiding_a_features_own_map_hurts_most() -> None:
    found = hiding(FACES, embed=embed, sae=one_to_one(N_SQUARES**2), noise=0.01, n_copies=4, seed=0)
    for hidden in ("blur", "gray"):
        lost = found.lost[hidden]
        assert set(lost) == {OWN, "other_feature", "other_face", "random"}
        assert all(one.shape == (3,) for one in lost.values())
    own, other = (found.lost["blur"][name] for name in (OWN, "other_feature"))
    assert own.min() > 0.5 and np.abs(other).max() < 0.2
    metrics = found.metrics
    assert metrics["maps/blur/map"] == pytest.approx(own.mean())
    assert metrics["maps/blur/other_feature_lead"] == pytest.approx((own - other).mean())
    assert metrics["maps/blur/other_feature_lead_low"] <= metrics["maps/blur/other_feature_lead"]


def test_the_top_tenth_is_a_tenth_with_the_largest_values() -> None:
    maps = torch.from_numpy(np.random.default_rng(1).random((2, 20, 30), dtype=np.float32))
    mask = top_share(maps)[:, 0]
    assert mask.sum(dim=(1, 2)).tolist() == [60, 60]
    for heat, chosen in zip(maps, mask, strict=True):
        assert heat[chosen].min() > heat[~chosen].max()


def test_the_similarity_falls_fastest_in_the_order_of_the_explanation() -> None:
    generator = np.random.default_rng(2)
    d = 24
    x = np.abs(generator.normal(size=(20, d))).astype(np.float32)
    sae = one_to_one(d)
    first, second = np.arange(0, 20, 2), np.arange(1, 20, 2)
    found = contributions(Decoder.of(sae), Entries.of(sae.encode(torch.from_numpy(x)).numpy()), x, first, second)
    genuine = np.arange(10) < 6
    tried = deletion(found, genuine=genuine, seed=0)
    for name in ORDERS:
        np.testing.assert_allclose(tried.curves[name][:, 0], found.decoded)
        assert tried.curves[name].shape == (10, len(SHARES))
    half = int(np.flatnonzero(SHARES == 0.5)[0])
    order = np.argsort(-found.value[found.of_pair(4)], kind="stable")[: d // 2]
    left = np.delete(x[[8, 9]].astype(float), found.feature[found.of_pair(4)][order], axis=1)
    expected = left[0] @ left[1] / np.linalg.norm(left[0]) / np.linalg.norm(left[1])
    assert tried.curves[EXPLANATION][4, half] == pytest.approx(expected)
    metrics = tried.metrics
    for kind, mask in (("genuine", genuine), ("impostor", ~genuine)):
        own = tried.areas[EXPLANATION][mask]
        assert metrics[f"deletion/{kind}/{EXPLANATION}"] == pytest.approx(own.mean())
        assert metrics[f"deletion/{kind}/random_lead_low"] > 0
        lead = metrics[f"deletion/{kind}/activation_lead"]
        assert lead == pytest.approx((tried.areas["activation"][mask] - own).mean()) and lead > 0


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        found = interval_of_mean(generator.normal(1.0, 2.0, size=60), "m")
        covered += found["m_low"] <= 1.0 <= found["m_high"]
    assert 0.89 <= covered / 200 <= 0.99
