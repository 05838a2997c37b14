"""What the page knows of its features, as columns that JSON can hold: the script page.js reads them by these names."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from fsae_mlflow.features.readings.judgments import PROPERTIES
from fsae_mlflow.features.readings.sentences import first_claim
from fsae_mlflow.features.table import Description
from fsae_mlflow.report.browser.images import FeatureImages, mostly_confirmed

ROWS_AT_ONCE = 2048
VERDICT = ("to_maximum", "percentile", "face_probability", "judge_auc", "probe_percentile", "confirmed", "doubts")


def nearest(
    decoder: Float[Tensor, "d_sae d_in"], features: Int64[np.ndarray, " n"], *, most: int
) -> dict[int, list[tuple[int, float]]]:
    """For each of the features the `most` others whose decoder rows have the largest cosine with its own."""
    rows = F.normalize(decoder[torch.from_numpy(features)].float(), dim=1)
    k = min(most + 1, len(features))
    found: dict[int, list[tuple[int, float]]] = {}
    for first in range(0, len(features), ROWS_AT_ONCE):
        values, places = (rows[first : first + ROWS_AT_ONCE] @ rows.T).topk(k, dim=1)
        for row, (of_row, at) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            own = int(features[first + row])
            others = [(int(features[place]), _short(value)) for value, place in zip(of_row, at, strict=True)]
            found[own] = [one for one in others if one[0] != own][:most]
    return found


def feature_entries(
    description: Description,
    features: Sequence[int],
    *,
    near: Mapping[int, list[tuple[int, float]]],
    images: FeatureImages,
    real_faces: bool,
    n_faces: int,
) -> list[dict[str, Any]]:
    """An entry for each feature; its faces are rows of the template set."""
    return [
        _entry(description, feature, near.get(feature, []), images, real_faces=real_faces, n_faces=n_faces)
        for feature in features
    ]


def _entry(
    description: Description,
    feature: int,
    near: list[tuple[int, float]],
    images: FeatureImages,
    *,
    real_faces: bool,
    n_faces: int,
) -> dict[str, Any]:
    activity = description.activity
    of = {name: values[feature] for name, values in description.columns.items()}
    claim = first_claim(of)
    reading, identity = str(of["reading"]), str(of.get("identity", ""))
    if not real_faces and identity:
        reading = reading.replace(f"person {identity} ", "one person ").replace(f"Person {identity} ", "One person ")
    density = float(activity.density[feature])
    values, shares = activity.distribution(feature)
    above = np.maximum(1 - shares, 1 / activity.n_faces)
    entry = {
        "id": feature,
        "reading": reading,
        "kind": claim.kind.replace("_", " "),
        "confirmed": bool(of["confirmed"]),
        "judged": bool(of.get("judged", True)),
        "strong": bool(of.get("attribute_strong", False)),
        "density": _short(density),
        "n": int(activity.counts[feature]),
        "people": int(of.get("n_people", 0)),
        "mean": _short(activity.mean[feature]),
        "max": _short(activity.maxima[feature]),
        "cluster": str(of.get("cluster", "")),
        "pose": str(of.get("pose", "")),
        "quality": str(of.get("quality", "")),
        "stability": _short(of.get("stability", math.nan)),
        "curve": [[_short(share), _short(value)] for share, value in zip(above.tolist(), values.tolist(), strict=True)],
        "p": _short(claim.p),
        "share": _short(claim.share),
        "base": _short(claim.base),
        "rho": {name: _short(of[f"{name}_rho"]) for name in ("yaw", "turn", *PROPERTIES) if f"{name}_rho" in of},
        "near": near,
    }
    if real_faces:
        entry["identity"] = identity if bool(of.get("identity_confirmed", False)) else ""
        entry["top"] = _faces(*activity.top.first(feature, n_faces))
        entry["sampled"] = _faces(*activity.sampled.spread(feature, n_faces))
    if feature in images.images:
        made = images.images[feature]
        entry["images"] = [{name: _plain(one.get(name)) for name in ("file", "activation", *VERDICT)} for one in made]
        entry["imagesConfirmed"] = mostly_confirmed([one["confirmed"] for one in made])
    if feature in images.dials:
        strip = sorted(images.dials[feature], key=lambda row: row["place"])
        entry["dial"] = {
            "file": strip[0]["file"],
            "steps": [row["step"] for row in strip],
            "activation": [_short(row["activation"]) for row in strip],
        }
    return entry


def _faces(rows: Shaped[np.ndarray, " n"], activations: Shaped[np.ndarray, " n"]) -> list[list[Any]]:
    """Pairs of a row and its activation."""
    return [[row, _short(value)] for row, value in zip(rows.tolist(), activations.tolist(), strict=True)]


def _plain(value: Any) -> Any:
    return _short(value) if isinstance(value, float) else value


def _short(value: Any) -> Any:
    """A number with three digits, which a page has room for; None for what is not known."""
    number = float(value)
    return float(f"{number:.3g}") if math.isfinite(number) else None
