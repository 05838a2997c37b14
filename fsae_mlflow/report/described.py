"""What describe shows: the strongest readings with their faces, and the SAE beside simple dictionaries."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsae_mlflow.features.activity.summary import FaceLists
from fsae_mlflow.features.describe import Described
from fsae_mlflow.features.judgments import POSES, PROPERTIES
from fsae_mlflow.features.readings import large_properties
from fsae_mlflow.report.dictionary import DictionaryRow, write_dictionary
from fsae_mlflow.report.grid import Tile
from fsae_mlflow.report.readings import N_SAMPLED, N_TOP, Reading, ReadingRow, strongest, write_readings
from fsae_mlflow.templates.set import TemplateSet

LABELS = {
    "sae": "this SAE",
    "raw": "raw dimensions ±",
    "random": "random directions ±",
    "pca": "PCA ±",
    "ica": "ICA ±",
    "kmeans": "k-means",
}
N_CORRELATIONS = 3
Chosen = tuple[np.ndarray, np.ndarray]
"""Rows of faces and their activations."""
CORRELATIONS = {"yaw": "yaw", "turn": "|yaw|"} | {name: name for name in PROPERTIES}


def write_figures(described: Described, templates: TemplateSet, folder: Path) -> list[Path]:
    """Draw readings.png, and dictionary.png where there are attributes and controls to compare with."""
    columns, activity = described.description.columns, described.description.activity
    alive = activity.counts > 0
    found = readings(described)
    best = strongest(found)
    top = [_first(activity.top, one.feature) for one in best]
    sampled = [_spread(activity.sampled, one.feature) for one in best]
    pictures = dict(templates.faces_in_order([row for rows, _ in top + sampled for row in rows.tolist()]))
    rows = [
        ReadingRow(reading=one, top=_tiles(pictures, *first), sampled=_tiles(pictures, *spread))
        for one, first, spread in zip(best, top, sampled, strict=True)
    ]
    n_found_on, n_confirmed_on = described.n_people
    written = [
        write_readings(
            folder / "readings.png",
            rows,
            headline=described.headline,
            n_confirmed=int(columns["confirmed"].sum()),
            n_alive=int(alive.sum()),
            n_found_on=n_found_on,
            n_confirmed_on=n_confirmed_on,
        )
    ]
    if len(described.metrics) > 1 and any(columns["attribute"] != ""):
        compared = [_dictionary_row(name, metrics) for name, metrics in described.metrics.items()]
        written.append(write_dictionary(folder / "dictionary.png", compared))
    return written


def readings(described: Described) -> list[Reading]:
    """The readings of all features that fire."""
    columns, activity = described.description.columns, described.description.activity
    large = large_properties(columns)
    return [
        _reading(
            feature, {name: values[feature] for name, values in columns.items()}, large, int(activity.counts[feature])
        )
        for feature in np.flatnonzero(activity.counts).tolist()
    ]


def reading_table(described: Described, *, n: int = 200) -> list[dict[str, Any]]:
    """The most confident readings, the strongest first, as rows of a table."""
    return [
        {
            "feature": one.feature,
            "reading": one.sentence,
            "kind": one.kind,
            "strong": one.strong,
            "share": one.share,
            "base": one.base,
            "p": one.p,
            "q": one.q,
            "faces": one.n_faces,
            "people": one.n_people,
        }
        for one in strongest(readings(described), n=n)
    ]


def _reading(feature: int, of: dict[str, Any], large: dict[str, np.ndarray], n_faces: int) -> Reading:
    properties = [name for name in PROPERTIES if large[name][feature]]
    rho = {label: float(of[f"{name}_rho"]) for name, label in CORRELATIONS.items()}
    share = base = p = q = math.nan
    kind = "unread"
    if of["attribute_confirmed"]:
        kind, share, base, p, q = (of[f"attribute{end}"] for end in ("", "_share", "_base", "_p", "_q"))
        rho = {of["attribute"]: of["attribute_rho"]} | rho if math.isnan(share) else rho
    elif of["identity_confirmed"]:
        kind, share, p, q = "identity", of["purity"], of["identity_p"], of["identity_q"]
        base = of["identity_base"]
    elif of["pose"] in POSES:
        name = "yaw" if of["pose"] in ("right", "left") else "turn"
        kind, p, q = "pose", of[f"{name}_p"], of[f"{name}_q"]
        rho = {CORRELATIONS[name]: rho[CORRELATIONS[name]]} | rho
    elif properties:
        kind = max(properties, key=lambda name: abs(of[f"{name}_rho"]))
        p, q, rho = of[f"{kind}_p"], of[f"{kind}_q"], {kind: rho[kind]} | rho
    shown = [*list(rho)[:1], *sorted(list(rho)[1:], key=lambda name: -abs(np.nan_to_num(rho[name])))][:N_CORRELATIONS]
    return Reading(
        feature=feature,
        sentence=of["reading"],
        kind=kind,
        confirmed=bool(of["confirmed"]),
        strong=bool(of["attribute_strong"]),
        share=float(share),
        base=float(base),
        p=float(p),
        q=float(q),
        n_faces=n_faces,
        n_people=int(of["n_people"]),
        rho={name: rho[name] for name in shown},
    )


def _first(faces: FaceLists, feature: int) -> Chosen:
    """The first of a feature's faces."""
    places = slice(min(faces.n[feature], N_TOP))
    return faces.rows[feature, places], faces.activations[feature, places]


def _spread(faces: FaceLists, feature: int) -> Chosen:
    """Some of a feature's faces, evenly over their order."""
    n = int(faces.n[feature])
    places = np.unique(np.linspace(0, n - 1, N_SAMPLED).round().astype(int)) if n else np.zeros(0, int)
    return faces.rows[feature, places], faces.activations[feature, places]


def _tiles(pictures: Mapping[int, Image.Image], rows: np.ndarray, activations: np.ndarray) -> list[Tile]:
    numbers = zip(rows.tolist(), activations.tolist(), strict=True)
    return [Tile(picture=pictures[row], caption=f"{activation:.3g}") for row, activation in numbers]


def _dictionary_row(name: str, metrics: dict[str, float]) -> DictionaryRow:
    return DictionaryRow(
        label=LABELS.get(name, name),
        n_judged=int(metrics["readings/n_judged"]),
        confirmed=metrics.get("readings/confirmed_of_judged", math.nan),
        strong=metrics.get("readings/strong_of_judged", math.nan),
        n_kinds=int(metrics["readings/n_kinds"]),
        is_control=name != "sae",
    )
