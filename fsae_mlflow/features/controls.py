"""Controls: simple directions in template space as SAEs, so that they are judged in the same way as trained ones.

A control reads templates of unit length minus their mean, at E‖x‖² = 1, and is a ReLU SAE whose weights are computed,
not trained. A signed control has each direction d twice, as d and −d: feature j + d_sae / 2 is the opposite of j.
"""

import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from fsae_mlflow.errors import UserError
from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import ReluSettings

FIRING = 0.05
"""Share of the templates that fire each k-means feature."""
KEPT_VARIANCE = 1 - 1e-6
"""Share of the variance that the effective dimension holds; components beyond it are rounding."""
ROWS_AT_ONCE = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Directions:
    """Features relu(encoder · x − threshold), and the decoder that adds them up to an estimate of x."""

    encoder: Float[np.ndarray, "d_sae d_in"]
    decoder: Float[np.ndarray, "d_sae d_in"]
    threshold: Float64[np.ndarray, " d_sae"]

    @classmethod
    def signed(cls, encoder: Float64[np.ndarray, "n d_in"], decoder: Float64[np.ndarray, "n d_in"]) -> "Directions":
        """Each component as two features, one where it is positive and one where it is negative."""
        return cls(
            encoder=np.concatenate([encoder, -encoder]),
            decoder=np.concatenate([decoder, -decoder]),
            threshold=np.zeros(2 * len(encoder)),
        )


def raw(x: Float64[np.ndarray, "n d_in"], n_features: int, _: int) -> Directions:
    """The first dimensions of the templates, signed."""
    axes = np.eye(x.shape[1])[: n_features // 2]
    return Directions.signed(axes, axes)


def random(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Uniformly distributed unit directions, signed; the decoder is their pseudo-inverse."""
    directions = np.random.default_rng(seed).normal(size=(n_features // 2, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Directions.signed(directions, np.linalg.pinv(directions).T)


def pca(x: Float64[np.ndarray, "n d_in"], n_features: int, _: int) -> Directions:
    """The unit principal components of the largest variances, signed; at most the effective dimension."""
    components = principal_components(x, n_features // 2)[1]
    return Directions.signed(components, components)


def ica(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Independent components of unit variance (FastICA, Hyvärinen 1999), signed; at most the effective dimension."""
    size, components = principal_components(x, n_features // 2)
    whitened = (x @ (components / size).T).astype(np.float32)  # half the time, and enough for what is learned of it
    fit = FastICA(whiten=False, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rotation = fit.fit(whitened).components_.astype(np.float64)
    if fit.n_iter_ >= fit.max_iter:
        logger.warning("controls: ICA of %d components did not converge in %d iterations", len(size), fit.n_iter_)
    return Directions.signed(rotation @ (components / size), rotation @ (components * size))


def kmeans(x: Float64[np.ndarray, "n d_in"], n_features: int, seed: int) -> Directions:
    """Unit directions of k-means centroids, each fired by the 5 % of the templates that lie farthest along it."""
    centroids = KMeans(min(n_features, len(x)), n_init="auto", random_state=seed).fit(x).cluster_centers_
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True).clip(min=1e-12)
    threshold = np.quantile(x @ centroids.T, 1 - FIRING, axis=0)
    return Directions(encoder=centroids, decoder=centroids, threshold=threshold)


# Each gets standardized templates, the number of features and the seed.
CONTROLS: dict[str, Callable[[Float64[np.ndarray, "n d_in"], int, int], Directions]] = {
    "raw": raw,
    "random": random,
    "pca": pca,
    "ica": ica,
    "kmeans": kmeans,
}


def control(
    name: str, templates: Float32[np.ndarray, "n d_in"], *, n_features: int, seed: int, origin: Origin
) -> SparseAutoencoder:
    """The control `name` of CONTROLS, fitted on raw templates of `origin`, on the CPU and in evaluation mode.

    It has `n_features` features, or fewer where there are not as many directions. Its density is that of `templates`.

    Raises: UserError for an unknown name, fewer than two features, or templates that are all the same.
    """
    if name not in CONTROLS:
        raise UserError(f"controls: {name!r} is none; known are {', '.join(CONTROLS)}.")
    if n_features < 2:
        raise UserError(f"controls: {name} must have at least 2 features, one for each sign; it has {n_features}.")
    x = templates / np.linalg.norm(templates.astype(np.float64), axis=1, keepdims=True).clip(min=1e-12)
    center = x.mean(axis=0)
    x -= center
    size = np.sqrt(np.square(x).sum() / max(len(x), 1))
    if not size > 1e-6:
        raise UserError(f"controls: {name} needs templates that differ; it has {len(x)} of one direction.")
    x /= size
    found = CONTROLS[name](x, n_features, seed)
    d_sae, d_in = found.encoder.shape
    sae = untrained(ReluSettings(lam=0.0), d_in, d_sae, normalize=True)
    weights = {
        "W_enc": found.encoder,
        "W_dec": found.decoder,
        "b_enc": -found.threshold,
        "b_dec": np.zeros(d_in),
        "center": center,
        "scale": 1 / size,
        "density": np.zeros(d_sae),
    }
    sae.load_state_dict({key: torch.as_tensor(value, dtype=torch.float32) for key, value in weights.items()})
    sae.origin = dataclasses.replace(origin, what=f"control: {name}")
    sae.eval().requires_grad_(False)
    parts = torch.from_numpy(templates).split(ROWS_AT_ONCE)
    sae.density.copy_(torch.stack([(sae.encode(part) > 0).sum(dim=0) for part in parts]).sum(dim=0) / len(templates))
    return sae


def principal_components(
    x: Float64[np.ndarray, "n d_in"], n_most: int
) -> tuple[Float64[np.ndarray, "n_components 1"], Float64[np.ndarray, "n_components d_in"]]:
    """The standard deviations of centered rows along their unit principal components, by falling size, and these.

    There are at most `n_most`, and at most as many as the effective dimension: the least number of components that hold
    99.9999 % of the variance.
    """
    variances, components = np.linalg.eigh(x.T @ x / len(x))
    variances, components = variances[::-1], components.T[::-1]
    held = variances.cumsum()
    n = min(n_most, int(np.searchsorted(held, KEPT_VARIANCE * held[-1])) + 1)
    return np.sqrt(variances[:n, None]), components[:n]
