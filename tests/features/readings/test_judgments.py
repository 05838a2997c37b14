from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from fsae_mlflow.features.readings.judgments import (
    PROPERTIES,
    Columns,
    ReadFaces,
    Sides,
    attribute_columns,
    confirmed_by_others,
    identity_columns,
    is_strong,
    pose_columns,
    property_columns,
)
from fsae_mlflow.features.statistics.association import (
    Association,
    association,
    association_within_people,
)
from fsae_mlflow.features.statistics.multiple import benjamini_hochberg
from fsae_mlflow.features.statistics.top_shares import top_shares
from fsae_mlflow.sae.entries import Entries

N_PEOPLE, N_EACH = 200, 6
PEOPLE = np.repeat(np.arange(N_PEOPLE), N_EACH)
CONFIRM = PEOPLE >= N_PEOPLE // 2


def mixture(numbers: np.random.Generator, share: float) -> np.ndarray:
    """Standard normal values, of whose variance a share is common to the faces of a person."""
    common, own = numbers.normal(size=N_PEOPLE)[PEOPLE], numbers.normal(size=len(PEOPLE))
    return np.sqrt(share) * common + np.sqrt(1 - share) * own


def read_faces(seed: int = 0) -> ReadFaces:
    """Faces whose sharpness falls with |yaw|; makeup is worn by women only, and one attribute is unknown on some."""
    numbers = np.random.default_rng(seed)
    yaw = 0.2 * mixture(numbers, 0.2)
    male = mixture(numbers, 1) > 0
    glasses = (mixture(numbers, 0.7) > 1.2).astype(float)
    glasses[numbers.random(len(PEOPLE)) < 0.2] = np.nan
    properties = {name: mixture(numbers, 0.3) for name in PROPERTIES}
    return ReadFaces(
        people=PEOPLE,
        names=[f"p{person:03d}" for person in range(N_PEOPLE)],
        confirm=CONFIRM,
        properties=properties | {"yaw": yaw, "sharpness": mixture(numbers, 0.3) - 8 * np.abs(yaw)},
        booleans={
            "male": male.astype(float),
            "makeup": (~male & (mixture(numbers, 0.5) > -0.3)).astype(float),
            "glasses": glasses,
        },
        numbers={"age": 40 + 10 * mixture(numbers, 1)},
    )


def noise(n: int, seed: int = 1) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    return np.stack([mixture(numbers, 0.5) for _ in range(n)], axis=1)


def follow(signal: np.ndarray, strength: float, seed: int = 1, *, density: float = 0.2) -> np.ndarray:
    """A feature that fires on the share of faces where signal and noise are highest."""
    signal = np.nan_to_num((signal - np.nanmean(signal)) / np.nanstd(signal))
    scores = strength * signal + np.sqrt(1 - strength**2) * noise(1, seed)[:, 0]
    return (scores - np.quantile(scores, 1 - density)).clip(0)


def judge(columns: object, features: list[np.ndarray], faces: ReadFaces) -> Columns:
    """Columns of a few features among fifty of noise."""
    entries = Entries.of(np.column_stack([*features, noise(50).clip(1) - 1]))
    return columns(Sides.of(entries, faces), faces)


def test_the_attribute_is_that_of_the_top_faces_and_its_numbers_those_of_the_other_people() -> None:
    faces = read_faces()
    features = [follow(values, 0.9) for values in faces.booleans.values()]
    entries = Entries.of(np.column_stack([*features, noise(50).clip(1) - 1]))
    found = attribute_columns(Sides.of(entries, faces), faces)
    assert found["attribute"][:3].tolist() == ["male", "makeup", "glasses"]
    assert found["attribute_confirmed"][:3].all() and found["attribute_strong"][:3].all()
    assert found["attribute_confirmed"][3:].mean() <= 0.02
    assert found["confounder"][:2].tolist() == ["makeup", "male"]
    labels = np.stack(list(faces.booleans.values()), axis=1)[CONFIRM]
    other = entries.of_rows(CONFIRM)
    tested = top_shares(other, labels, PEOPLE[CONFIRM], k=30).p
    for j, name in enumerate(faces.booleans):
        known = ~np.isnan(labels[:, j])
        y, a = labels[known, j], features[j][CONFIRM][known]
        assert found["attribute_share"][j] == top_shares(other, labels, PEOPLE[CONFIRM], k=20).share[j, j]
        assert found["attribute_base"][j] == pytest.approx(y.mean())
        assert found["attribute_auroc"][j] == pytest.approx(roc_auc_score(y, a))
        assert found["attribute_ap"][j] == pytest.approx(average_precision_score(y, a))
        assert found["attribute_p"][j] == tested[j, j]
        assert found["attribute_rho"][j] == pytest.approx(pearsonr(rankdata(a), y).statistic)
        assert name == found["attribute"][j]
    assert found["attribute_q"] == pytest.approx(benjamini_hochberg(found["attribute_p"]))


def test_a_confounder_takes_its_part_of_the_correlation() -> None:
    faces = read_faces()
    found = judge(attribute_columns, [follow(faces.booleans["male"], 0.9)], faces)
    a, male, makeup = (
        rankdata(x[CONFIRM]) for x in (follow(faces.booleans["male"], 0.9), *list(faces.booleans.values())[:2])
    )
    left = [x - np.polyval(np.polyfit(makeup, x, 1), makeup) for x in (a, male)]
    assert found["attribute_rho_given_confounder"][0] == pytest.approx(pearsonr(*left).statistic)
    assert found["attribute_rho_given_confounder"][0] < found["attribute_rho"][0]


def test_what_only_one_half_of_the_people_shows_is_not_confirmed() -> None:
    faces = read_faces()
    male = faces.booleans["male"]
    both, random = follow(male, 0.9), follow(male, 0.0)
    found = judge(attribute_columns, [both, np.where(CONFIRM, random, both), np.where(CONFIRM, both, random)], faces)
    assert found["attribute_confirmed"][:3].tolist() == [True, False, False]
    assert found["attribute_p"][1] > 0.01


def test_a_number_takes_the_place_of_attributes_that_show_less() -> None:
    faces = read_faces()
    age = faces.numbers["age"]
    features = [follow(age, 0.8), follow(-age, 0.8), follow(np.where(CONFIRM, 80 - age, age), 0.8)]
    features.append(follow(faces.booleans["male"], 0.9))
    found = judge(attribute_columns, features, replace(faces, numbers={"weight": noise(1, 7)[:, 0], "age": age}))
    assert found["attribute"][:4].tolist() == ["age +", "age −", "age +", "male"]
    assert found["attribute_confirmed"][:4].tolist() == [True, True, False, True]
    assert found["attribute_p"][2] == 1
    assert not found["attribute_strong"][:3].any()
    assert np.isnan([found[f"attribute_{kind}"][:3] for kind in ("share", "base", "auroc", "ap")]).all()
    assert (np.sign(found["attribute_rho"][:2]) == [1, -1]).all()


def test_an_attribute_of_many_top_faces_is_not_replaced_by_a_number_of_smaller_p() -> None:
    faces = read_faces()
    male = faces.booleans["male"]
    found = judge(attribute_columns, [follow(male, 0.9)], replace(faces, numbers={"height": male + noise(1)[:, 0] / 9}))
    assert found["attribute"][0] == "male"


@pytest.mark.parametrize(
    ("share", "base", "strong"),
    [
        (0.80, 0.06, True),
        (0.79, 0.06, False),
        (0.85, 0.60, False),
        (0.90, 0.60, True),
        (0.95, 0.90, True),
        (0.9, 0.7, False),
    ],
)
def test_strong_is_many_of_the_top_faces_and_more_than_of_all(share: float, base: float, strong: bool) -> None:
    assert is_strong(np.array([share]), np.array([base])).tolist() == [strong]


def test_of_equal_p_the_larger_share_is_the_attribute() -> None:
    faces, picture = read_faces(), np.arange(len(PEOPLE)) % N_EACH
    twelve, others = PEOPLE % 100 < 12, (PEOPLE % 100 >= 12) & (PEOPLE % 100 < 24)
    feature = np.where(twelve & (picture < 2), 2.0 - picture, 0)
    booleans = {
        "once": (twelve & (picture == 0)) | (others & (picture == 1)),
        "twice": twelve & (picture < 2),
        "everyone": PEOPLE >= 0,
    }
    booleans = {name: values.astype(float) for name, values in booleans.items()}
    found = judge(attribute_columns, [feature], replace(faces, booleans=booleans))
    assert found["attribute"][0] == "twice"
    assert found["attribute_share"][0] == 1


@pytest.mark.parametrize(
    ("n_without", "n_others", "confirmed"), [(1, 5, True), (2, 5, False), (1, 0, False), (0, 0, True)]
)
def test_an_attribute_needs_p_and_q(n_without: int, n_others: int, confirmed: bool) -> None:
    """Of 12 confirming people 11 give p = 0.003, and 10 p = 0.02; q is much larger where nothing else is confirmed."""
    faces, first = read_faces(), np.arange(len(PEOPLE)) % N_EACH == 0
    half = (PEOPLE % 2 == 0).astype(float)
    found = first & (PEOPLE < 24) & (half == 1)
    with_it = np.flatnonzero(first & CONFIRM & (half == 1))[: 12 - n_without]
    without = np.flatnonzero(first & CONFIRM & (half == 0))[:n_without]
    feature = found.astype(float)
    feature[[*with_it, *without]] = 1
    strong = [follow(half, 0.95, seed) for seed in range(n_others)]
    weak = [] if n_others else [noise(1, seed)[:, 0].clip(1) - 1 for seed in range(40)]
    entries = Entries.of(np.column_stack([feature, *strong, *weak]))
    faces = replace(faces, booleans={"half": half}, numbers={})
    columns = attribute_columns(Sides.of(entries, faces), faces)
    assert columns["attribute_confirmed"][0] == confirmed
    assert columns["attribute_p"][0] == pytest.approx({0: 0.0002, 1: 0.003, 2: 0.02}[n_without], rel=0.15)


def test_other_people_confirm_by_q_p_and_sign() -> None:
    def related(t: list[float], p: list[float]) -> Association:
        column = np.array(t)[:, None]
        return Association(rho=column, error=column, t=column, p=np.array(p)[:, None], n_people=np.ones((6, 1), int))

    found = related([3.0, 3, 3, 3, -3, 3], [1e-4, 1e-4, 0.04, 1e-4, 1e-4, 1e-4])
    other = related([3.0, 2, 3, -3, -3, 3], [1e-4, 0.02, 1e-4, 1e-4, 1e-4, 1e-4])
    q, confirmed = confirmed_by_others(found, other, np.array([True] * 5 + [False]))
    assert confirmed[:, 0].tolist() == [True, False, True, False, True, False]
    assert np.isnan(q[5, 0])
    found.p[2:5] = [[0.04], [0.5], [0.9]]  # q of the third is 0.067
    assert confirmed_by_others(found, other, np.ones(6, bool))[1][:, 0].tolist() == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]


def test_few_people_are_not_judged() -> None:
    faces = read_faces()
    nine = ~CONFIRM | (PEOPLE >= N_PEOPLE - 9)
    ten = ~CONFIRM | (PEOPLE >= N_PEOPLE - 10)
    features = [follow(faces.booleans["male"], 0.9) * 0 + mask for mask in (nine, ten)]
    entries = Entries.of(np.column_stack(features))
    sides = Sides.of(entries, faces)
    assert sides.judged.tolist() == [False, True]
    found = attribute_columns(sides, faces)
    assert found["attribute"][0] == "" and found["attribute"][1] != ""
    assert np.isnan(found["attribute_p"][0]) and np.isnan(found["attribute_q"][0])


@pytest.mark.parametrize("without", ["booleans", "numbers", "both"])
def test_labels_may_be_missing(without: str) -> None:
    faces = read_faces()
    gone = {name: {} for name in ("booleans", "numbers") if without in (name, "both")}
    found = judge(attribute_columns, [follow(faces.booleans["male"], 0.9)], replace(faces, **gone))
    assert (found["attribute"][0] == "") == (without == "both")
    assert found["attribute_confirmed"][0] == (without == "numbers")


def test_pose_is_what_changes_among_the_faces_of_a_person() -> None:
    faces = read_faces()
    yaw = faces.properties["yaw"]
    of_person = np.array([yaw[person == PEOPLE].mean() for person in range(N_PEOPLE)])[PEOPLE]
    turn = np.abs(yaw)
    features = [follow(signal, 0.8) for signal in (yaw, -yaw, turn, -turn, of_person)]
    features += [follow(np.where(CONFIRM, -yaw, yaw), 0.8), np.where(PEOPLE % 7 == 0, noise(1, 5)[:, 0], 0).clip(0)]
    found = judge(pose_columns, features, faces)
    assert found["pose"][:4].tolist() == ["right", "left", "turned", "frontal"]
    assert found["pose"][4] not in ("right", "left")
    assert found["pose"][5] not in ("right", "left")
    assert found["pose"][6] == "undetermined"
    assert (found["pose"][7:] == "invariant").mean() > 0.5
    entries = Entries.of(np.column_stack([*features, noise(50).clip(1) - 1]))
    values = np.stack([yaw, turn], axis=1)
    other, first = (
        association_within_people(entries.of_rows(mask), values[mask], PEOPLE[mask]) for mask in (CONFIRM, ~CONFIRM)
    )
    for i, name in enumerate(("yaw", "turn")):
        assert found[f"{name}_rho"] == pytest.approx(other.rho[:, i])
        assert found[f"{name}_p"] == pytest.approx(other.p[:, i])
        assert found[f"{name}_q"] == pytest.approx(benjamini_hochberg(first.p[:, i]))


def test_pose_is_unknown_without_yaw() -> None:
    found = judge(pose_columns, [noise(1)[:, 0].clip(0)], replace(read_faces(), properties={}))
    assert set(found["pose"]) == {"unknown"}
    assert np.isnan(found["yaw_p"]).all()


def test_quality_is_what_yaw_does_not_explain() -> None:
    faces = read_faces()
    turn, sharpness = np.abs(faces.properties["yaw"]), faces.properties["sharpness"]
    features = [follow(-turn, 0.9), follow(sharpness, 0.8), follow(-faces.properties["grayness"], 0.8)]
    found = judge(property_columns, features, faces)
    assert found["sharpness_confirmed"][:3].tolist() == [False, True, False]
    assert found["quality"][1] == "equivariant"
    assert found["quality"][2] != "equivariant"
    assert found["grayness_confirmed"][2] and found["grayness_rho"][2] < -0.1
    assert sum(found[f"{name}_confirmed"][3:].sum() for name in PROPERTIES) <= 3
    unaware = judge(property_columns, features, replace(faces, properties={"sharpness": sharpness}))
    assert unaware["sharpness_confirmed"][0]
    assert not unaware["norm_confirmed"].any() and np.isnan(unaware["norm_rho"]).all()
    entries = Entries.of(np.column_stack([*features, noise(50).clip(1) - 1]))
    values, yaw = np.stack([faces.properties[name] for name in PROPERTIES], axis=1), faces.properties["yaw"]
    controls = np.stack([yaw, turn], axis=1)
    other, first = (
        association(entries.of_rows(mask), values[mask], PEOPLE[mask], controls=controls[mask])
        for mask in (CONFIRM, ~CONFIRM)
    )
    for i, name in enumerate(PROPERTIES):
        assert found[f"{name}_rho"] == pytest.approx(other.rho[:, i])
        assert found[f"{name}_p"] == pytest.approx(other.p[:, i])
        assert found[f"{name}_q"] == pytest.approx(benjamini_hochberg(first.p[:, i]))


def slightly_sharp() -> tuple[Entries, ReadFaces]:
    """Two features of 4,000 people: one that follows sharpness a little, and one that does not."""
    numbers = np.random.default_rng(0)
    people = np.repeat(np.arange(4000), 3)
    sharpness, unrelated = numbers.normal(size=(2, len(people)))
    weak = 0.08 * sharpness + numbers.normal(size=len(people))
    faces = ReadFaces(
        people=people,
        names=[""] * 4000,
        confirm=people >= 2000,
        properties={"sharpness": sharpness},
        booleans={},
        numbers={},
    )
    return Entries.of(np.column_stack([weak, unrelated]).clip(0)), faces


def test_a_small_correlation_is_not_equivariance_and_no_correlation_is_invariance() -> None:
    entries, faces = slightly_sharp()
    sides = Sides.of(entries, faces)
    found = property_columns(sides, faces)
    assert found["sharpness_confirmed"].tolist() == [True, False]
    assert found["quality"].tolist() == ["invariant", "invariant"]
    assert (property_columns(sides, replace(faces, properties={}))["quality"] == "unknown").all()


def test_an_identity_needs_a_pure_top() -> None:
    faces = read_faces()
    features = np.zeros((len(PEOPLE), 3))
    features[PEOPLE == 3, 0] = 2
    features[PEOPLE == 3, 1] = 1
    features[::60, 0] = 1
    features[::60, 1] = 2  # twenty other people fire it more
    found = identity_columns(Entries.of(features), faces)
    assert found["identity"].tolist() == ["p003", "p003", ""]
    assert found["identity_p"][1] < 0.01
    assert found["identity_confirmed"].tolist() == [False, False, False]
    features[::60, 0] = 0
    features[:2, 0] = 1
    found = identity_columns(Entries.of(features), faces)
    assert found["purity"][0] == pytest.approx(6 / 8)
    assert found["identity_confirmed"].tolist() == [True, False, False]


def test_an_identity_that_other_pictures_do_not_show_is_not_confirmed() -> None:
    features = np.zeros((len(PEOPLE), 1))
    features[18:24:2] = 2  # pictures 0, 2 and 4 of person 3
    features[:2] = 1
    found = identity_columns(Entries.of(features), read_faces())
    assert found["identity"][0] == "p003"
    assert found["purity"][0] == pytest.approx(3 / 5)
    assert not found["identity_confirmed"][0]
