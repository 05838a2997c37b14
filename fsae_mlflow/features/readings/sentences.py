"""What each feature means, in one sentence, where other people or other pictures confirm it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from fsae_mlflow.features.readings.judgments import (
    POSES,
    PROPERTIES,
    SMALL,
    Columns,
    ReadFaces,
    Sides,
    attribute_columns,
    identity_columns,
    pose_columns,
    property_columns,
)
from fsae_mlflow.features.statistics.monosemanticity import monosemanticity, monosemanticity_shuffled
from fsae_mlflow.sae.entries import Entries

OF_POSE = {
    "right": "fires more on faces turned to the right of the image",
    "left": "fires more on faces turned to the left of the image",
    "turned": "fires more on faces turned to either side",
    "frontal": "fires more on frontal faces",
    "invariant": "pose-invariant",
}
MORE_AND_LESS = {
    "sharpness": ("sharp", "blurred"),
    "interocular": ("high-resolution", "low-resolution"),
    "norm": ("high-norm", "low-norm"),
    "face_size": ("large", "small"),
    "roll": ("clockwise-tilted", "counterclockwise-tilted"),
    "brightness": ("bright", "dark"),
    "grayness": ("gray", "colorful"),
}
"""Faces of a high and of a low value of each property."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Columns of d_sae values by name, and the metrics of the dictionary."""

    columns: Columns
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is read first of a feature, and the numbers that support it.

    `kind`: the attribute, "identity", "pose", a property, or "unread". `share` and `base`: shares, 0…1, of the top
    faces and of all faces that have the attribute or are the person; nan for others. `p`, `q`: of the confirmation.
    `rho`: the column of the correlation that is read, as "yaw_rho"; "" for a share.
    """

    kind: str
    share: float = math.nan
    base: float = math.nan
    p: float = math.nan
    q: float = math.nan
    rho: str = ""


def read_features(entries: Entries, faces: ReadFaces, *, high: Bool[np.ndarray, " d_sae"], seed: int) -> Readings:
    """The readings of all features, given their entries on the read faces.

    `high`: the features of the high-density cluster; `seed` shuffles the judge's templates. The columns are those of
    `judgments`, and: judged (at least 10 people fire the feature on either side), monosemanticity and
    monosemanticity_shuffled (nan without a judge), confirmed (an attribute, an identity, a pose, or a property with
    |ρ| ≥ 0.1), and reading: a sentence, "unread" where nothing is confirmed, "dead" where the feature never fires.
    """
    sides = Sides.of(entries, faces)
    columns: Columns = {"judged": sides.judged}
    columns |= attribute_columns(sides, faces)
    columns |= pose_columns(sides, faces)
    columns |= property_columns(sides, faces)
    columns |= identity_columns(entries, faces)
    if faces.judge is None:
        columns["monosemanticity"] = columns["monosemanticity_shuffled"] = np.full(entries.d_sae, np.nan)
    else:
        columns["monosemanticity"] = monosemanticity(entries, faces.judge)
        columns["monosemanticity_shuffled"] = monosemanticity_shuffled(entries, faces.judge, seed=seed)
    alive = entries.counts > 0
    columns["confirmed"] = _confirmed(columns)
    columns["reading"] = _sentences(columns, alive)
    return Readings(columns=columns, metrics=_metrics(columns, alive, high))


def large_properties(columns: Mapping[str, Any]) -> dict[str, Any]:
    """By property, whether it is confirmed with |ρ| ≥ 0.1: of all features, or of the one that the values are of."""
    return {name: columns[f"{name}_confirmed"] & (np.abs(columns[f"{name}_rho"]) >= SMALL) for name in PROPERTIES}


def confirmed_poses(columns: Mapping[str, np.ndarray]) -> Bool[np.ndarray, " d_sae"]:
    """Whether a pose is confirmed."""
    return np.isin(columns["pose"].astype(str), POSES)


def first_claim(of: Mapping[str, Any]) -> Claim:
    """What is read first of a feature, given its value in each column: an attribute, else a person, a pose, or the
    property with the largest |ρ|.
    """
    if of["attribute_confirmed"]:
        share, base, p, q = (float(of[f"attribute_{name}"]) for name in ("share", "base", "p", "q"))
        rho = "attribute_rho" if math.isnan(share) else ""
        return Claim(kind=of["attribute"], share=share, base=base, p=p, q=q, rho=rho)
    if of["identity_confirmed"]:
        share, base, p, q = (float(of[name]) for name in ("purity", "identity_base", "identity_p", "identity_q"))
        return Claim(kind="identity", share=share, base=base, p=p, q=q)
    if of["pose"] in POSES:
        name, kind = "yaw" if of["pose"] in ("right", "left") else "turn", "pose"
    elif large := [name for name, mask in large_properties(of).items() if mask]:
        name = kind = max(large, key=lambda name: abs(of[f"{name}_rho"]))
    else:
        return Claim(kind="unread")
    return Claim(kind=kind, p=float(of[f"{name}_p"]), q=float(of[f"{name}_q"]), rho=f"{name}_rho")


def kinds_of(readings: Mapping[str, np.ndarray]) -> Shaped[np.ndarray, " d_sae"]:
    """What is read first of each feature: an attribute, identity, pose or a property, or "unread"."""
    kinds = np.full(len(readings["reading"]), "unread", dtype=object)
    for feature in np.flatnonzero(readings["confirmed"]):
        kinds[feature] = first_claim({name: values[feature] for name, values in readings.items()}).kind
    return kinds


def _confirmed(columns: Columns) -> Bool[np.ndarray, " d_sae"]:
    masks = (columns["attribute_confirmed"], columns["identity_confirmed"], confirmed_poses(columns))
    return np.any([*masks, *large_properties(columns).values()], axis=0)


def _sentences(columns: Columns, alive: Bool[np.ndarray, " d_sae"]) -> Shaped[np.ndarray, " d_sae"]:
    sentences = np.where(alive, "unread", "dead").astype(object)
    for feature in np.flatnonzero(columns["confirmed"]):
        sentence = "; ".join(_parts({name: values[feature] for name, values in columns.items()}))
        sentences[feature] = f"{sentence[0].upper()}{sentence[1:]}."
    return sentences


def _parts(of: Mapping[str, Any]) -> Iterator[str]:
    """What is confirmed of one feature, the attribute first."""
    if of["attribute_confirmed"]:
        name = of["attribute"].replace("_", " ")
        if np.isnan(of["attribute_share"]):
            rho = f"{of['attribute_rho']:.2f}".replace("-", "−")
            yield f"{'rises' if name[-1] == '+' else 'falls'} with {name[:-2]} (ρ {rho})"
        else:
            share, base = _percent(of["attribute_share"]), _percent(of["attribute_base"])
            yield f"{name} ({share} of its top faces, {base} of all{_explained(of)})"
    if of["identity_confirmed"]:
        yield f"person {of['identity']} ({_percent(of['purity'])} of its strongest faces)"
    if of["pose"] in OF_POSE:
        yield OF_POSE[of["pose"]]
    if large := [name for name, mask in large_properties(of).items() if mask]:
        *kinds, last = [MORE_AND_LESS[name][int(of[f"{name}_rho"] < 0)] for name in large]
        yield f"fires more on {', '.join(kinds)}{' and ' if kinds else ''}{last} faces"
    if of["quality"] == "invariant":
        yield "quality-invariant"


def _explained(of: Mapping[str, Any]) -> str:
    """The attribute that goes with the one that is read, where less than half of the correlation is left without it."""
    rest = of["attribute_rho_given_confounder"]
    if not abs(rest) < abs(of["attribute_rho"]) / 2:
        return ""
    return (
        f"; largely explained by {of['confounder'].replace('_', ' ')}: ρ {of['attribute_rho']:.2f}, {rest:.2f} given it"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _metrics(columns: Columns, alive: Bool[np.ndarray, " d_sae"], high: Bool[np.ndarray, " d_sae"]) -> dict[str, float]:
    """Shares and counts of readings, of all alive features and of each density cluster; no share of nothing."""
    judged, strong, person = columns["judged"], columns["attribute_strong"], columns["identity_confirmed"]
    shares = {
        "confirmed": columns["confirmed"],
        "attribute": columns["attribute_confirmed"],
        "strong": strong,
        "identity": person,
    }
    metrics: dict[str, float] = {}
    for prefix, members in (
        ("readings/", alive),
        ("readings/high_density/", alive & high),
        ("readings/low_density/", alive & ~high),
    ):
        tested = members & judged
        metrics[f"{prefix}n_judged"] = float(tested.sum())
        metrics[f"{prefix}n_kinds"] = float(len(set(columns["attribute"][members & strong])))
        metrics[f"{prefix}n_identities"] = float(len(set(columns["identity"][members & person])))
        for of, among in (("alive", members), ("judged", tested)):
            if among.any():
                metrics |= {f"{prefix}{name}_of_{of}": float(mask[among].mean()) for name, mask in shares.items()}
    if alive.any():
        for pose in (*OF_POSE, "undetermined", "unknown"):
            metrics[f"readings/pose_{pose}"] = float((columns["pose"][alive] == pose).mean())
    return metrics
