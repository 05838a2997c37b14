import numpy as np
import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.explanation.accounts import account, feature_pairs, pair_matrix, threshold
from fsae_mlflow.explanation.contributions import Contributions, Decoder, contributions, cosines
from fsae_mlflow.explanation.results import Explanation
from fsae_mlflow.explanation.stage import Explained
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import GatedSettings, TopKSettings

WIDTH, D_SAE, N = 12, 40, 30


def random_sae(settings: GatedSettings | TopKSettings, *, normalize: bool) -> SparseAutoencoder:
    """An SAE with weights of all kinds, so that no part of the decoder is trivial."""
    torch.manual_seed(0)
    sae = untrained(settings, WIDTH, D_SAE, normalize=normalize).eval().requires_grad_(False)
    sae.scale.fill_(0.4)
    sae.center.copy_(torch.linspace(-0.3, 0.5, WIDTH))
    sae.b_dec.copy_(torch.linspace(0.2, -0.1, WIDTH))
    sae.W_enc.mul_(3)
    sae.W_dec.mul_(torch.linspace(0.5, 2, D_SAE)[:, None])
    return sae


@pytest.fixture(scope="module", params=[(GatedSettings(), False), (TopKSettings(k=5), True)])
def sae(request: pytest.FixtureRequest) -> SparseAutoencoder:
    settings, normalize = request.param
    return random_sae(settings, normalize=normalize)


TEMPLATES = np.random.default_rng(1).normal(size=(N, WIDTH)).astype(np.float32) + 0.3
FIRST, SECOND = np.arange(0, N, 2), np.arange(1, N, 2)


@pytest.fixture(scope="module")
def found(sae: SparseAutoencoder) -> Contributions:
    return contributions(Decoder.of(sae), entries_of(sae), TEMPLATES, FIRST, SECOND)


def entries_of(sae: SparseAutoencoder) -> Entries:
    return Entries.of(sae.encode(torch.from_numpy(TEMPLATES)).numpy())


def decoded(sae: SparseAutoencoder, off: np.ndarray | None = None) -> np.ndarray:
    """What the SAE itself decodes, in float64, without the features `off`."""
    features = sae.encode(torch.from_numpy(TEMPLATES))
    if off is not None:
        features[:, off] = 0
    return sae.double().decode(features.double()).numpy()


@pytest.fixture(autouse=True)
def single_precision(sae: SparseAutoencoder) -> None:
    sae.float()


def test_contributions_and_what_all_have_in_common_sum_to_the_cosine_of_the_decoded_templates(
    sae: SparseAutoencoder, found: Contributions
) -> None:
    x_hat = decoded(sae)
    sums = np.bincount(found.pair, found.value, minlength=len(found)) + found.constant
    np.testing.assert_allclose(sums, cosines(x_hat[FIRST], x_hat[SECOND]), atol=1e-6)
    np.testing.assert_allclose(found.decoded, sums, atol=1e-6)
    np.testing.assert_allclose(found.original, cosines(TEMPLATES[FIRST], TEMPLATES[SECOND]))
    np.testing.assert_allclose(found.original, sums + found.unexplained, atol=1e-6)


def test_every_feature_that_fires_on_either_face_has_an_entry(sae: SparseAutoencoder, found: Contributions) -> None:
    features = sae.encode(torch.from_numpy(TEMPLATES)).numpy()
    assert found.shared.any() and not found.shared.all()
    for pair, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        place = found.of_pair(pair)
        np.testing.assert_array_equal(found.feature[place], np.flatnonzero((features[a] > 0) | (features[b] > 0)))
        np.testing.assert_allclose(found.first[place], features[a][found.feature[place]])
        np.testing.assert_allclose(found.second[place], features[b][found.feature[place]])
        np.testing.assert_array_equal(found.shared[place], (features[[a, b]][:, found.feature[place]] > 0).all(axis=0))


def test_without_a_feature_the_cosine_is_that_of_templates_decoded_without_it(
    sae: SparseAutoencoder, found: Contributions
) -> None:
    for feature in np.unique(found.feature):
        x_hat = decoded(sae, np.array([feature]))
        here = np.flatnonzero(found.feature == feature)
        expected = cosines(x_hat[FIRST], x_hat[SECOND])[found.pair[here]]
        np.testing.assert_allclose(found.without[here], expected, atol=1e-6)


def test_features_are_switched_off_one_after_another(sae: SparseAutoencoder, found: Contributions) -> None:
    place = found.of_pair(3)
    order = np.argsort(-found.value[place])
    left = found.switched_off(3, order, np.array([0, 2, len(order)]))
    np.testing.assert_allclose(
        left[:, 1], decoded(sae, found.feature[place][order[:2]])[[FIRST[3], SECOND[3]]], atol=1e-6
    )
    np.testing.assert_allclose(left[:, 0], found.x_hat[[FIRST[3], SECOND[3]]], atol=1e-12)
    np.testing.assert_allclose(left[:, 2], np.tile(found.decoder.constant, (2, 1)), atol=1e-9)


def test_pairs_of_features_sum_to_what_features_contribute(found: Contributions) -> None:
    matrix, (first, second) = pair_matrix(found, 5)
    place = found.of_pair(5)
    c, size = found.decoder.constant, found.lengths[5].prod()
    along = found.decoder.directions[found.feature[place]] @ c
    with_constant = (found.first[place] + found.second[place]) * along / (2 * size)
    halves = np.zeros(D_SAE)
    np.add.at(halves, first, matrix.sum(axis=1) / 2)
    np.add.at(halves, second, matrix.sum(axis=0) / 2)
    np.testing.assert_allclose(halves[found.feature[place]] + with_constant, found.value[place], atol=1e-9)
    strongest = feature_pairs(found, 5, most=3)
    largest = np.where(first[:, None] == second[None], 0, np.abs(matrix)).max()
    assert abs(strongest[0].contribution) == pytest.approx(largest) and len(strongest) == 3
    assert all(one.first != one.second for one in strongest)


def test_some_pairs_of_many_are_the_same_pairs(found: Contributions) -> None:
    some = found.of_pairs(np.array([7, 2]))
    for new, old in enumerate((7, 2)):
        np.testing.assert_array_equal(some.feature[some.of_pair(new)], found.feature[found.of_pair(old)])
        np.testing.assert_allclose(some.value[some.of_pair(new)], found.value[found.of_pair(old)])
        assert some.decoded[new] == found.decoded[old] and (some.rows[new] == found.rows[old]).all()


def told(
    sae: SparseAutoencoder, found: Contributions, pair: int, limit: float, without: np.ndarray | None = None
) -> Explanation:
    cosine, genuine = np.linspace(-1, 1, 20), np.arange(20) >= 10
    plain = threshold(cosine, genuine, far=0.1)
    at = type(plain)(**{**vars(plain), "cosine": limit})
    readings = [f"reading {feature}" for feature in range(D_SAE)]
    return account(
        *(found, pair),
        sae=sae,
        name="pair",
        images=("a", "b"),
        genuine=True,
        readings=readings,
        n_off=4,
        thresholds=(at, at),
        without=without,
    )


def test_the_account_of_a_pair_states_its_numbers_and_its_counterfactual(
    sae: SparseAutoencoder, found: Contributions
) -> None:
    pair = int(found.decoded.argmax())
    place = found.of_pair(pair)
    limit = float(found.decoded[pair]) - 0.2
    explanation = told(sae, found, pair, limit)
    values = [part.contribution for part in explanation.features]
    assert values == sorted(found.value[place].tolist(), reverse=True)
    assert sum(values) + explanation.constant + explanation.unexplained == pytest.approx(explanation.similarity)
    assert all(part.reading == f"reading {part.feature}" for part in explanation.features)
    assert explanation.accepted == (explanation.similarity > limit)
    for n, step in enumerate(explanation.counterfactual, start=1):
        assert step.features == [part.feature for part in explanation.features[:n]]
        x_hat = decoded(sae, np.array(step.features))[found.rows[pair]]
        assert step.cosine == pytest.approx(cosines(x_hat[:1], x_hat[1:])[0], abs=1e-6)
        sae.float()
        again = sae.encode(torch.from_numpy(x_hat).float())
        assert step.n_firing_again == int((again[:, step.features] > 0).any(dim=0).sum())
        x_again = sae.decode(again).numpy()
        assert step.read_again == pytest.approx(cosines(x_again[:1], x_again[1:])[0], abs=1e-5)
    n = explanation.n_until_rejected
    assert n
    order = np.array([part.feature for part in explanation.features])
    for off, is_above in ((order[: n - 1], True), (order[:n], False)):
        x_hat = decoded(sae, off)[found.rows[pair]]
        assert (cosines(x_hat[:1], x_hat[1:])[0] > limit) == is_above
    assert told(sae, found, pair, float(found.decoded[pair]) + 0.1).n_until_rejected is None
    assert [one.contribution for one in explanation.opposing(2)] == sorted(values)[:2]
    assert all(one.contribution > 0 for one in explanation.shared(100))


def test_features_that_are_named_are_switched_off(sae: SparseAutoencoder, found: Contributions) -> None:
    plain = told(sae, found, 1, -1.0)
    weakest = {part.feature for part in plain.features[-3:]}
    absent = next(feature for feature in range(D_SAE) if feature not in [part.feature for part in plain.features])
    without = np.isin(np.arange(D_SAE), [*weakest, absent])
    named = told(sae, found, 1, 1.0, without)
    steps = named.counterfactual
    assert len(steps) == 1 and set(steps[0].features) == weakest and named.n_until_rejected is None
    x_hat = decoded(sae, np.flatnonzero(without))[found.rows[1]]
    assert steps[-1].cosine == pytest.approx(cosines(x_hat[:1], x_hat[1:])[0], abs=1e-6)
    assert told(sae, found, 1, -1.0, np.arange(D_SAE) == absent).counterfactual == []


def test_a_threshold_accepts_at_most_the_far_and_says_what_it_accepts() -> None:
    cosine = np.concatenate([np.linspace(0, 0.9, 100), [0.85, 0.95, 0.2, 0.89]])
    genuine = np.arange(104) >= 100
    at = threshold(cosine, genuine, far=0.02)
    assert (cosine[~genuine] > at.cosine).mean() == at.far == 0.02
    assert at.tar == (cosine[genuine] > at.cosine).mean() == 0.5
    assert (at.n_impostors, at.n_genuine) == (100, 4)
    with pytest.raises(
        UserError,
        match=r"needs at least 1,000 impostor pairs, and there are 100; give a far of at least 0\.01",
    ):
        threshold(cosine, genuine, far=0.001)
    assert threshold(cosine, genuine, far=None).far == 0.01  # one of 100
    many = np.linspace(-1, 1, 5001)
    assert threshold(many, np.arange(5001) == 5000, far=None).far == 0.001
    with pytest.raises(UserError, match="there are none; give pairs or faces of more people"):
        threshold(cosine, ~genuine | genuine, far=None)
    with pytest.raises(UserError, match=r"give a far of at least 0\.0034,"):
        threshold(np.linspace(-1, 1, 301), np.arange(301) == 300, far=0.003)
    assert threshold(np.linspace(-1, 1, 301), np.arange(301) == 300, far=0.0034).far > 0


def test_a_face_that_fires_nothing_has_a_cosine_of_the_constant() -> None:
    sae = random_sae(GatedSettings(), normalize=False)
    entries = Entries.of(np.zeros((2, D_SAE), np.float32))
    found = contributions(Decoder.of(sae), entries, TEMPLATES[:2], np.array([0]), np.array([1]))
    assert len(found.feature) == 0 and found.decoded[0] == pytest.approx(1) == pytest.approx(found.constant[0])
    assert feature_pairs(found, 0) == []
    nothing = told(sae, found, 0, 0.5)
    assert nothing.features == nothing.counterfactual == [] and nothing.n_until_rejected is None
    assert "none fires" in Explained(explanations=[nothing], metrics={}, files=[]).headline


def test_a_template_that_is_nothing_without_a_feature_has_no_direction() -> None:
    sae = random_sae(GatedSettings(), normalize=False)
    sae.b_dec.zero_()
    sae.center.zero_()
    features = np.zeros((2, D_SAE), np.float32)
    features[:, 3] = 1.7
    features[1, 5] = 0.3
    found = contributions(Decoder.of(sae), Entries.of(features), TEMPLATES[:2], np.array([0]), np.array([1]))
    assert found.without[0] == 0 and np.abs(found.without).max() <= 1
