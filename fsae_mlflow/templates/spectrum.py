"""The effective dimension of templates: in how many of their dimensions their variance lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from fsae_mlflow.progress import progress
from fsae_mlflow.templates.set import TemplateSet

SHARES = (90.0, 99.0, 99.99)
"""Percent of the variance whose dimensions are counted."""


@dataclass(frozen=True)
class Spectrum:
    """The variances along the principal components of L2-normalized, centered templates, falling, at least 0."""

    variances: Float64[np.ndarray, " d_in"]

    @property
    def participation_ratio(self) -> float:
        """(Σλ)² / Σλ², 1…d_in: the number of dimensions, if all variances λ were equal (Gao et al. 2017); 0 where
        all templates are equal.
        """
        squares = np.square(self.variances).sum()
        return float(self.variances.sum() ** 2 / squares) if squares > 0 else 0.0

    def dimensions(self, percent: float) -> int:
        """The least number of principal components that hold `percent` of the variance; 0 where all templates are
        equal.
        """
        held = self.variances.cumsum()
        return int(np.searchsorted(held, percent / 100 * held[-1])) + 1 if held[-1] > 0 else 0

    @property
    def metrics(self) -> dict[str, float]:
        """Numbers to log, named `spectrum/…`."""
        counts = {f"spectrum/dimensions_{percent:g}": float(self.dimensions(percent)) for percent in SHARES}
        return {"spectrum/participation_ratio": self.participation_ratio, **counts}


def spectrum(templates: TemplateSet) -> Spectrum:
    """The spectrum of a set's templates, in float64, with one shard in memory at a time."""
    d, n = templates.width, 0
    origin, total, products = np.zeros(d), np.zeros(d), np.zeros((d, d))
    chunks = templates.chunks("template")
    for chunk in progress(chunks, total=len(templates), label="spectrum", unit="templates", size=len):
        x = _normalized(chunk)
        if not n:
            origin = x[0].copy()  # sums from there on are exactly 0 where all templates are equal
        x -= origin
        total += x.sum(axis=0)
        products += x.T @ x
        n += len(x)
    mean = total / max(n, 1)
    variances = np.linalg.eigvalsh(products / max(n, 1) - np.outer(mean, mean))
    return Spectrum(variances[::-1].clip(min=0))


def _normalized(templates: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    x = templates.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12)
