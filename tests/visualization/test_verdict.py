import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.visualization.targets import Target
from fsae_mlflow.visualization.verdict.firing import Firing, Reference, firing
from fsae_mlflow.visualization.verdict.judge import Judge
from fsae_mlflow.visualization.verdict.verdict import doubts

REFERENCE = Reference(
    density=0.2,
    maximum=4.0,
    percentile=3.0,
    mean_norm=1.0,
    values=np.array([0.0, 1.0, 2.0, 3.0, 4.0]),
    shares=np.array([0.8, 0.9, 0.98, 0.999, 1.0]),
)
FIRED = Firing(
    activation=3.5, shifted=3.1, jpeg=3.2, percentile=99.95, to_maximum=0.875, rank=1, margin=2.0, norm_ratio=1.0
)


def test_percentiles_lie_between_the_known_quantiles() -> None:
    assert REFERENCE.percentile_of(0.0) == pytest.approx(80)
    assert REFERENCE.percentile_of(1.5) == pytest.approx(94)
    assert REFERENCE.percentile_of(3.0) == pytest.approx(99.9)
    assert REFERENCE.percentile_of(9.0) == pytest.approx(100)


NO_HARDER = "fires it no harder than 99.9 % of real faces"


@pytest.mark.parametrize(
    ("change", "face", "auc", "found"),
    [
        ({}, 1.0, math.nan, []),
        ({}, 1.0, 0.8, []),
        ({}, 0.5, 0.8, ["MTCNN sees no face"]),
        ({}, 1.0, 0.7, ["the judge does not find it like the feature's faces"]),
        ({"activation": 2.9}, 1.0, 0.8, [NO_HARDER]),
        ({"shifted": 2.9, "jpeg": 2.9}, 1.0, 0.8, [f"{NO_HARDER}, after a shift"]),
        ({"jpeg": 2.9}, 1.0, 0.8, [f"{NO_HARDER}, after JPEG"]),
        ({"to_maximum": 2.1}, 1.0, 0.8, ["fires it more than 2 times as hard as any real face"]),
        ({"to_maximum": math.nan}, 1.0, 0.8, ["no real face fires it"]),
    ],
)
def test_every_part_of_the_rule_that_fails_is_said(
    change: dict[str, float], face: float, auc: float, found: list[str]
) -> None:
    fired = dataclasses.replace(FIRED, **change)
    assert doubts(fired, REFERENCE, face_probability=face, judge_auc=auc, judged=not math.isnan(auc)) == found


def test_what_a_judge_cannot_tell_is_not_confirmed() -> None:
    found = doubts(FIRED, REFERENCE, face_probability=1.0, judge_auc=math.nan, judged=True)
    assert found == ["the judge knows too few of the feature's faces"]


def test_a_feature_that_hardly_fires_needs_an_activation() -> None:
    rare = dataclasses.replace(REFERENCE, percentile=0.0)
    silent = dataclasses.replace(FIRED, shifted=0.0)
    assert doubts(silent, rare, face_probability=1.0, judge_auc=0.9, judged=True)


def test_an_image_is_measured_shifted_and_as_jpeg(sae: GatedSAE, recognizer: nn.Module) -> None:
    gray = np.full((112, 112, 3), 128, np.uint8)
    edge = gray.copy()
    edge[:, 54:] = 255
    flat, split = firing(
        [gray, edge],
        [Target((0,)), Target((0,))],
        [REFERENCE, REFERENCE],
        maxima=np.ones(sae.d_sae),
        recognizer=recognizer,
        sae=sae,
    )
    assert flat.shifted == pytest.approx(flat.activation, abs=1e-5)
    features = sae.encode(recognizer(torch.from_numpy(edge).permute(2, 0, 1)[None].float() / 255))[0]
    assert split.activation == pytest.approx(float(features[0]), rel=1e-5)
    others = features.clone()
    others[0] = 0
    assert split.rank == 1 + int((others > features[0]).sum())
    assert split.shifted < split.activation or split.activation == 0


def made(templates: np.ndarray, drawn: np.ndarray) -> Judge:
    return Judge(
        recognizer=nn.Identity(),
        rows=np.arange(len(templates)),
        people=np.array([f"person {row}" for row in range(len(templates))]),
        drawn=drawn,
        templates=templates.astype(np.float32),
        device=torch.device("cpu"),
    )


def test_the_judge_compares_top_faces_with_faces_that_were_drawn() -> None:
    angles = np.radians([0, 5, 10, 20, 30, 12, 80, 90, 100, 3])
    templates = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    drawn = np.array([False] * 5 + [True] * 4 + [False])  # the last is a top face of another feature
    judge, seen = made(templates, drawn), np.array([1, 0], np.float32)
    # Of the top faces (0 to 30 degrees), three are nearer than the face at 12 degrees, and all nearer than the others.
    assert judge.auc(seen, np.arange(5)) == pytest.approx((3 * 4 + 2 * 3) / 20)
    assert math.isnan(judge.auc(seen, np.arange(4)))


def test_a_real_face_is_not_compared_with_itself() -> None:
    angles = np.radians([0, 5, 10, 20, 30, 40, 80, 90])
    judge = made(np.stack([np.cos(angles), np.sin(angles)], axis=1), np.ones(8, bool))
    assert judge.auc(np.array([1, 0], np.float32), np.arange(1, 6), but=0) == 1
    assert judge.auc(np.array([1, 0], np.float32), np.arange(6), but=0) == 1


def test_a_probe_places_the_image_among_faces_without_the_attribute() -> None:
    generator = np.random.default_rng(0)
    has = (np.arange(200) % 4 == 0).astype(float)
    templates = generator.normal(size=(200, 6))
    templates[:, 0] += 4 * has
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    judge = made(templates, np.ones(200, bool))
    has[:10] = np.nan
    probe = judge.probe(has)
    assert probe is not None
    toward, away = (np.eye(6)[0] * sign for sign in (1, -1))
    assert probe.percentile(toward.astype(np.float32)) > 99
    assert probe.percentile(away.astype(np.float32)) < 10
    assert judge.probe(np.where(np.arange(200) < 5, 1.0, 0.0)) is None


def test_a_probe_of_noise_places_a_face_in_the_middle() -> None:
    # With 40 dimensions a probe tells 60 faces apart that it was fitted on, whatever their labels; new ones it cannot.
    generator = np.random.default_rng(1)
    judge = made(generator.normal(size=(60, 40)), np.ones(60, bool))
    probe = judge.probe((np.arange(60) % 2).astype(float))
    assert probe is not None
    unseen = generator.normal(size=(200, 40)).astype(np.float32)
    assert np.mean([probe.percentile(one) for one in unseen]) == pytest.approx(50, abs=12)
    scores = probe.model.decision_function(judge.templates[::2])
    assert np.mean(np.searchsorted(probe.without, scores)) < 10  # the faces of the fit itself are far below
