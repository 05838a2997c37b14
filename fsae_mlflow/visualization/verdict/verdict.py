"""The verdict on an image: everything that was measured, and the rule that it is confirmed by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import nn

from fsae_mlflow.faces.detection.mtcnn import FaceFinder
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.targets import Target
from fsae_mlflow.visualization.verdict.firing import Firing, Reference, firing
from fsae_mlflow.visualization.verdict.judge import Judge, Probe

SMALLEST_FACE = 40.0
"""Pixels of the smallest face that is searched for in an image of 112 pixels."""
LARGEST_RATIO = 2.0
FACE_PROBABILITY = 0.9
JUDGE_AUC = 0.75
RULE = f"""\
An image is confirmed if it fires its feature harder than 99.9 % of real faces on the saved file, after shifts by \
2 pixels and after JPEG; the file fires it at most {LARGEST_RATIO:g} times as hard as the hardest real face; MTCNN \
sees a face (probability {FACE_PROBABILITY:g}); and, where there is a judge, its AUC is at least {JUDGE_AUC:g}. A \
feature is confirmed if more than half of its images are."""


@dataclass(frozen=True, kw_only=True)
class Verdict(Firing):
    """What an image's saved file shows. `face_probability`: the largest of MTCNN's, 0 where it finds no face.
    `judge_auc`: the probability that a second recognizer finds the image more similar to one of the feature's top faces
    than to another face. `probe_percentile`: among real faces without the attribute that the feature is read as, the
    place of the image by a probe of the second recognizer, 0…100. Both are nan where they are not known. `confirmed`:
    RULE; `doubts`: the parts of it that fail, in words.
    """

    face_probability: float
    judge_auc: float
    probe_percentile: float
    confirmed: bool
    doubts: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """What an image is judged by: its target, the target on real faces, the rows of its top faces, and the attribute
    that it is read as, if any. `row`: that of the face itself, where the image is a real face.
    """

    target: Target
    reference: Reference
    top: np.ndarray
    attribute: str = ""
    row: int = -1


def verdicts(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
    cases: Sequence[Case],
    *,
    recognizer: nn.Module,
    sae: SparseAutoencoder,
    maxima: Float64[np.ndarray, " d_sae"],
    judge: Judge | None,
    probes: Mapping[str, Probe],
    device: torch.device,
) -> list[Verdict]:
    """The verdict on each picture; `maxima` are the largest activations of real faces."""
    if not pictures:
        return []
    fired = firing(
        pictures,
        [one.target for one in cases],
        [one.reference for one in cases],
        maxima=maxima,
        recognizer=recognizer,
        sae=sae,
    )
    finder = FaceFinder(min_face=SMALLEST_FACE, min_face_share=0.0, device=device)
    faces = [float(found.probabilities.max(initial=0.0)) for found in finder(list(pictures))]
    seen = judge.see(pictures) if judge else [None] * len(pictures)
    return [
        _verdict(one, case, face, template, judge, probes.get(case.attribute))
        for one, case, face, template in zip(fired, cases, faces, seen, strict=True)
    ]


def _verdict(
    fired: Firing,
    case: Case,
    face_probability: float,
    template: Float32[np.ndarray, " d"] | None,
    judge: Judge | None,
    probe: Probe | None,
) -> Verdict:
    auc = judge.auc(template, case.top, but=case.row) if judge and template is not None else math.nan
    found = doubts(fired, case.reference, face_probability=face_probability, judge_auc=auc, judged=judge is not None)
    return Verdict(
        **vars(fired),
        face_probability=face_probability,
        judge_auc=auc,
        probe_percentile=probe.percentile(template) if probe and template is not None else math.nan,
        confirmed=not found,
        doubts="; ".join(found),
    )


def doubts(
    fired: Firing, reference: Reference, *, face_probability: float, judge_auc: float, judged: bool
) -> list[str]:
    """The parts of RULE that fail, in words; of an image that was `judged`, a `judge_auc` that is not known fails."""
    found = []
    for activation, where in ((fired.activation, ""), (fired.shifted, ", after a shift"), (fired.jpeg, ", after JPEG")):
        if activation <= 0 or activation < reference.percentile:
            found.append(f"fires it no harder than 99.9 % of real faces{where}")
            break
    if math.isnan(fired.to_maximum):
        found.append("no real face fires it")
    elif fired.to_maximum > LARGEST_RATIO:
        found.append(f"fires it more than {LARGEST_RATIO:g} times as hard as any real face")
    if face_probability < FACE_PROBABILITY:
        found.append("MTCNN sees no face")
    if judged and math.isnan(judge_auc):
        found.append("the judge knows too few of the feature's faces")
    elif judged and judge_auc < JUDGE_AUC:
        found.append("the judge does not find it like the feature's faces")
    return found
