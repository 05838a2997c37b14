"""What describe shows: the strongest readings with their faces, and the SAE beside simple dictionaries."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from fsae_mlflow.features.describe import Described
from fsae_mlflow.features.readings.judgments import PROPERTIES
from fsae_mlflow.features.readings.sentences import first_claim
from fsae_mlflow.report.dictionary import DictionaryRow, write_dictionary
from fsae_mlflow.report.grid import captioned
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
    top = [activity.top.first(one.feature, N_TOP) for one in best]
    sampled = [activity.sampled.spread(one.feature, N_SAMPLED) for one in best]
    pictures = dict(templates.faces_in_order([row for rows, _ in top + sampled for row in rows.tolist()]))
    rows = [
        ReadingRow(reading=one, top=captioned(pictures, *first), sampled=captioned(pictures, *spread))
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
    return [
        _reading(feature, {name: values[feature] for name, values in columns.items()}, int(activity.counts[feature]))
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


def _reading(feature: int, of: dict[str, Any], n_faces: int) -> Reading:
    claim = first_claim(of)
    names = {f"{name}_rho": label for name, label in CORRELATIONS.items()} | {"attribute_rho": claim.kind}
    first = [claim.rho] if claim.rho else []
    others = {name: abs(np.nan_to_num(of[name])) for name in names if name not in (claim.rho, "attribute_rho")}
    shown = [*first, *sorted(others, key=others.__getitem__, reverse=True)][:N_CORRELATIONS]
    return Reading(
        feature=feature,
        sentence=of["reading"],
        kind=claim.kind,
        confirmed=bool(of["confirmed"]),
        strong=bool(of["attribute_strong"]),
        share=claim.share,
        base=claim.base,
        p=claim.p,
        q=claim.q,
        n_faces=n_faces,
        n_people=int(of["n_people"]),
        rho={names[name]: float(of[name]) for name in shown},
    )


def _dictionary_row(name: str, metrics: dict[str, float]) -> DictionaryRow:
    return DictionaryRow(
        label=LABELS.get(name, name),
        n_judged=int(metrics["readings/n_judged"]),
        confirmed=metrics.get("readings/confirmed_of_judged", math.nan),
        strong=metrics.get("readings/strong_of_judged", math.nan),
        n_kinds=int(metrics["readings/n_kinds"]),
        is_control=name != "sae",
    )
