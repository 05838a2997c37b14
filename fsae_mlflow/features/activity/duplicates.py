"""Near-duplicates: pictures whose templates have a cosine above 0.98, such as one picture that is listed twice.

A projection to 64 random directions finds candidates among all pairs; near 0.98 its cosine is off by 0.005 (standard
deviation). Where lists of faces are thinned, the projected cosine decides; where faces are read, the exact one does.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from fsae_mlflow.features.activity.summary import FaceLists
from fsae_mlflow.progress import progress
from fsae_mlflow.templates.set import TemplateSet

COSINE = 0.98
N_DIRECTIONS = 64
CANDIDATE = 0.95
"""A projected cosine that pairs of an exact one above 0.98 exceed almost certainly: by six standard deviations."""
BLOCK = 2048


def distinct(templates: Float32[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Which templates are no near-duplicate of an earlier one that is kept."""
    n, kept = len(templates), np.ones(len(templates), dtype=bool)
    whole, sketch = _unit(templates), _sketch(templates)
    starts = range(0, n, BLOCK)
    for start in progress(starts, total=n, label="near-duplicates", unit="faces", size=lambda _: BLOCK):
        block = sketch[start : start + BLOCK]
        first, second = np.nonzero(block @ sketch[: start + BLOCK].T > CANDIDATE)
        first += start
        earlier = second < first
        for late, early in zip(first[earlier].tolist(), second[earlier].tolist(), strict=True):
            if kept[early] and whole[late] @ whole[early] > COSINE:
                kept[late] = False
    return kept


def without_duplicates(
    lists: FaceLists, templates: TemplateSet, *, most: int
) -> tuple[FaceLists, Int64[np.ndarray, " d"]]:
    """The first `most` faces of each list without near-duplicates of a face before them, and how many were dropped."""
    used = lists.used
    rows = np.unique(lists.rows[used]).astype(np.int64)
    sketch = _sketch_of(templates, rows)
    keep, size = used.copy(), max(1, 2**22 // lists.rows.shape[1] ** 2)
    for first in range(0, len(lists.rows), size):
        some = slice(first, first + size)
        faces = sketch[np.searchsorted(rows, lists.rows[some]).clip(max=len(rows) - 1)].astype(np.float32)
        alike = faces @ faces.transpose(0, 2, 1) > COSINE
        for place in range(1, lists.rows.shape[1]):
            keep[some, place] &= ~(alike[:, place, :place] & keep[some, :place]).any(axis=1)
    return lists.kept(keep, most=most), (used & ~keep).sum(axis=1)


def _sketch_of(templates: TemplateSet, rows: Int64[np.ndarray, " n"]) -> np.ndarray:
    """The sketches of ascending rows, in half precision; one shard is in memory at a time."""
    parts: Iterable[np.ndarray] = (
        _sketch(part[rows[slice(*np.searchsorted(rows, [first, first + len(part)]))] - first]).astype(np.float16)
        for first, part, _ in templates.batches()
    )
    return np.concatenate([*parts])


def _sketch(templates: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n 64"]:
    directions = np.random.default_rng(0).normal(size=(templates.shape[1], N_DIRECTIONS)).astype(np.float32)
    return _unit(templates @ directions)


def _unit(vectors: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
