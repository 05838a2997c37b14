"""Affine maps that remove attributes from templates: the peers of leaving out features."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

Eraser = Callable[[Float64[np.ndarray, "m d"]], Float64[np.ndarray, "m d"]]

NEGLIGIBLE = 1e-12
"""Variance, relative to that of the first principal direction, below which a direction is rounding."""


def leace(x: Float64[np.ndarray, "n d"], z: Float64[np.ndarray, "n k"]) -> Eraser:
    """The map that moves templates `x` least, in mean square, of all affine maps after which no linear classifier of
    the attributes `z` beats a constant one on `x`.

    r(x) = x − W⁺ P W (x − E[x]), with the whitening W = (Σxx^½)⁺ and P the orthogonal projection onto the columns of
    W Σxz (Belrose et al. 2023, arXiv 2306.03819, theorem 4.3).
    """
    mean = x.mean(axis=0)
    centered = x - mean
    variances, directions = np.linalg.eigh(centered.T @ centered / len(x))
    kept = variances > NEGLIGIBLE * variances.max()
    root, directions = np.sqrt(variances[kept]), directions[:, kept]
    whitened = (directions.T @ (centered.T @ (z - z.mean(axis=0)) / len(x))) / root[:, None]
    basis = _basis(whitened)
    to, back = directions / root @ basis, directions * root @ basis

    def erase(templates: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "m d"]:
        return templates - (templates - mean) @ to @ back.T

    return erase


def mean_difference(x: Float64[np.ndarray, "n d"], z: Float64[np.ndarray, "n k"]) -> Eraser:
    """The orthogonal projection onto what is left of the space of templates without the mean differences of `x` between
    those that have each attribute of `z` (1) and those that lack it (0).
    """
    basis = _basis(np.stack([x[has].mean(axis=0) - x[~has].mean(axis=0) for has in (z > 0).T], axis=1))

    def erase(templates: Float64[np.ndarray, "m d"]) -> Float64[np.ndarray, "m d"]:
        return templates - templates @ basis @ basis.T

    return erase


def _basis(columns: Float64[np.ndarray, "d k"]) -> Float64[np.ndarray, "d rank"]:
    """Orthonormal columns with the span of `columns`."""
    left, singular, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, singular > 1e-9 * singular.max()]
