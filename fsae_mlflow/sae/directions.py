"""Directions in template space that are computed, not trained: controls, dictionaries of their own, and first weights.

Each method gets centered templates x, E‖x‖² = 1, the number of features and a seed. A signed method has each direction
d twice, as d and −d: feature j + n / 2 is the opposite of j.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

KEPT_VARIANCE = 1 - 1e-6
"""Share of the variance that the effective dimension holds; components beyond it are rounding."""
FIRING = 0.05
"""Share of the templates that fire each k-means feature."""
N_STARTS, N_ITERATIONS = 1500, 40
APART, SAME = 0.3, 0.5
"""Cosines, in whitened space, from which a pursued direction is like another, and a component like a pursued one."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Features relu(encoder · x − threshold), and the decoder that adds them up to an estimate of x."""

    encoder: Float[np.ndarray, "n d_in"]
    decoder: Float[np.ndarray, "n d_in"]
    threshold: Float64[np.ndarray, " n"]

    @classmethod
    def plain(cls, encoder: Float64[np.ndarray, "n d_in"], decoder: Float64[np.ndarray, "n d_in"]) -> "Directions":
        """Features that fire on all that lies along their direction."""
        return cls(encoder=encoder, decoder=decoder, threshold=np.zeros(len(encoder)))

    @classmethod
    def signed(cls, encoder: Float64[np.ndarray, "n d_in"], decoder: Float64[np.ndarray, "n d_in"]) -> "Directions":
        """Each component as two features, one where it is positive and one where it is negative."""
        return cls.plain(np.concatenate([encoder, -encoder]), np.concatenate([decoder, -decoder]))


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """The principal components of centered rows, by falling size: `size` is the standard deviation along each."""

    size: Float64[np.ndarray, " m"]
    components: Float64[np.ndarray, "m d_in"]

    @classmethod
    def of(cls, x: Float[np.ndarray, "n d_in"], n_most: int) -> "Whitening":
        """At most `n_most` components, and at most as many as the effective dimension: the least number that holds
        99.9999 % of the variance.
        """
        variances, components = np.linalg.eigh(x.T.astype(np.float64) @ x / len(x))
        variances, components = variances[::-1], components.T[::-1]
        held = variances.cumsum()
        n = min(n_most, int(np.searchsorted(held, KEPT_VARIANCE * held[-1])) + 1)
        return cls(size=np.sqrt(variances[:n]), components=components[:n])

    @property
    def to_unit(self) -> Float64[np.ndarray, "m d_in"]:
        """Rows that give each component unit variance."""
        return self.components / self.size[:, None]

    @property
    def from_unit(self) -> Float64[np.ndarray, "m d_in"]:
        """What each unit of a component adds to x."""
        return self.components * self.size[:, None]


def raw(x: Float64[np.ndarray, "n d_in"], n_features: int, _: int) -> Directions:
    """The first dimensions of the templates, signed."""
    axes = np.eye(x.shape[1])[: n_features // 2]
    return Directions.signed(axes, axes)


def random(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Uniformly distributed unit directions, signed; the decoder is their pseudo-inverse."""
    directions = unit(np.random.default_rng(seed).normal(size=(n_features // 2, x.shape[1])))
    return Directions.signed(directions, np.linalg.pinv(directions).T)


def data(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """The directions of templates drawn at random, each once."""
    drawn = unit(x[np.random.default_rng(seed).permutation(len(x))[:n_features]])
    return Directions.plain(drawn, drawn)


def pca(x: Float64[np.ndarray, "n d_in"], n_features: int, _: int) -> Directions:
    """The unit principal components of the largest variances, signed; at most the effective dimension."""
    components = Whitening.of(x, n_features // 2).components
    return Directions.signed(components, components)


def ica(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Independent components of unit variance (FastICA, Hyvärinen 1999), signed; at most the effective dimension."""
    whitening = Whitening.of(x, n_features // 2)
    rotation = _rotation(whitened(x, whitening), seed)
    return Directions.signed(rotation @ whitening.to_unit, rotation @ whitening.from_unit)


def kmeans(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Unit directions of k-means centroids, each fired by the 5 % of the templates that lie farthest along it."""
    # Scikit-learn takes a moment to import.
    from sklearn.cluster import KMeans

    centroids = unit(KMeans(min(n_features, len(x)), n_init="auto", random_state=seed).fit(x).cluster_centers_)
    return Directions(encoder=centroids, decoder=centroids, threshold=np.quantile(x @ centroids.T, 1 - FIRING, axis=0))


def pursuit(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Directions of large kurtosis, at most half of the features, and the independent components of most skewness.

    All are found in at most d_in / 2 whitened components z. The first are local maxima of E[(w · z)⁴]: FastICA's fixed
    point for one unit (Hyvärinen and Oja 1997), w ← E[z (w · z)³] − 3 w, from 1,500 templates, without orthogonality
    between the units, so that there can be more of them than dimensions; each is turned to its longer tail (projection
    pursuit, Friedman and Tukey 1974). Signed independent components that are like none of them fill the other places.
    """
    whitening = Whitening.of(x, max(1, min(n_features, x.shape[1]) // 2))
    z = whitened(x, whitening)
    found = pursued(z, seed)
    found = found[distinct(found, n_features // 2)]
    rotation = _rotation(z, seed).astype(np.float32)
    components = np.concatenate([rotation, -rotation])
    new = components[(components @ found.T).max(axis=1) < SAME]
    skewest = new[np.argsort(-_skewness(z, new), kind="stable")][: n_features - len(found)]
    units = np.concatenate([found, skewest]).astype(np.float64)
    return Directions.plain(units @ whitening.to_unit, units @ whitening.from_unit)


DIRECTIONS: dict[str, Callable[[Float64[np.ndarray, "n d_in"], int, int], Directions]] = {
    "raw": raw,
    "random": random,
    "data": data,
    "pca": pca,
    "ica": ica,
    "kmeans": kmeans,
    "pursuit": pursuit,
}
"""Each gets centered templates, the number of features and the seed; there are fewer where directions run out."""


def whitened(x: Float64[np.ndarray, "n d_in"], whitening: Whitening) -> Float32[np.ndarray, "n m"]:
    """The components of rows at unit variance, in single precision, which is enough for what is learned of them."""
    return (x @ whitening.to_unit.T).astype(np.float32)


def pursued(z: Float32[np.ndarray, "n m"], seed: int) -> Float32[np.ndarray, "n_starts m"]:
    """Unit directions of locally largest kurtosis of whitened rows, turned to the longer tail, the largest first."""
    starts = np.random.default_rng(seed).permutation(len(z))[:N_STARTS]
    units = unit(z[starts])
    for _ in range(N_ITERATIONS):
        former, units = units, unit(((z @ units.T) ** 3).T @ z / len(z) - 3 * units)
        if (np.einsum("ij,ij->i", former, units) > 1 - 1e-4).mean() > 0.98:
            break
    kurtosis = np.square(np.square(z @ units.T)).mean(axis=0)
    turned = np.where(_skewness(z, units)[:, None] < 0, -units, units)
    return turned[np.argsort(-kurtosis, kind="stable")]


def distinct(units: Float32[np.ndarray, "n m"], n_most: int) -> Int64[np.ndarray, " n_kept"]:
    """The first unit directions that have no cosine of 0.3 or more to one before them."""
    cosines, free, kept = units @ units.T, np.ones(len(units), bool), []
    for place in range(len(units)):
        if free[place] and len(kept) < n_most:
            kept.append(place)
            free &= cosines[place] < APART
    return np.array(kept, dtype=np.int64)


def _skewness(z: Float32[np.ndarray, "n m"], units: Float32[np.ndarray, "k m"]) -> Float32[np.ndarray, " k"]:
    projected = z @ units.T
    return np.einsum("ij,ij,ij->j", projected, projected, projected) / len(z)


def unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows at unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)


def _rotation(z: Float32[np.ndarray, "n m"], seed: int) -> Float64[np.ndarray, "m m"]:
    """The rows that make whitened rows independent."""
    # Scikit-learn takes a moment to import.
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    fit = FastICA(whiten=False, random_state=seed)  # pyright: ignore[reportArgumentType]
    # One small eigendecomposition an iteration: threads that wait for each other can take ten times longer.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        rotation = fit.fit(z).components_.astype(np.float64)
    if fit.n_iter_ >= fit.max_iter:
        logger.warning("ICA of %d components did not converge in %d iterations", z.shape[1], fit.n_iter_)
    return rotation
