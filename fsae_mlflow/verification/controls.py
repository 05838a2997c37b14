"""Controls of the table: as many other features as a cluster has, as many principal components, and the mean template.

random   for each cluster, as many features that fire, drawn at random
energy   for each cluster, as many features of the largest energy E[f²] ‖d‖², d the feature's decoder row
pca      for each cluster, as many principal components of templates as the cluster's L0: that many numbers describe a
         template in either
mean     the mean template in the place of each
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.clusters import Clusters
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import Whitening, unit
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.decoding import Decoded
from fsae_mlflow.verification.pairs import RowPairs

MOST_FITTED = 100_000
"""Templates that principal components are fitted on."""


def feature_controls(
    names: Sequence[str], split: Clusters, energy: Float64[np.ndarray, " d_sae"] | None, *, seed: int
) -> dict[str, Bool[np.ndarray, " d_sae"]]:
    """The features of the controls random_high, random_low, energy_high and energy_low, as far as `names` has them.

    Random features are drawn from those that fire. Of equal energies the feature of the smaller number comes first.
    """
    alive, numbers = np.flatnonzero(split.high | split.low), np.arange(len(split.high))
    generator, masks = np.random.default_rng(seed), {}
    for cluster, n in (("high", int(split.high.sum())), ("low", int(split.low.sum()))):
        if "random" in names:
            drawn = generator.permutation(alive)[:n]
            masks[f"random_{cluster}"] = np.isin(numbers, drawn)
        if "energy" in names and energy is not None:
            largest = np.argsort(-energy, kind="stable")[:n]
            masks[f"energy_{cluster}"] = np.isin(numbers, largest)
    return masks


def energies(sae: SparseAutoencoder, activity: Activity) -> Float64[np.ndarray, " d_sae"]:
    """E[f²] ‖d‖² of each feature, at least 0: the mean square of what it adds to scaled templates."""
    squares = np.where(activity.counts, activity.mean**2 + activity.std**2, 0) * activity.density
    return squares * np.square(sae.W_dec.detach().double().cpu().numpy()).sum(axis=1)


def template_controls(
    names: Sequence[str],
    templates: Float32[np.ndarray, "n d_in"],
    fitted: Float32[np.ndarray, "m d_in"],
    l0: Mapping[str, float],
    *,
    normalize: bool,
) -> dict[str, Decoded]:
    """The controls pca_high, pca_low and mean of raw templates, as far as `names` has them; they are fitted on others.

    There are as many components as each cluster's rounded `l0`, at least one, and at most the effective dimension. All
    templates are brought to unit length before where `normalize` is set, as the SAE's are.
    """
    x, fitted = (unit(one) if normalize else one for one in (templates, fitted))
    mean = fitted.mean(axis=0, dtype=np.float64)
    estimates = {}
    if "pca" in names:
        n_components = {cluster: max(1, round(size)) for cluster, size in l0.items()}
        components = Whitening.of(fitted - mean, max(n_components.values())).components
        for cluster, n in n_components.items():
            kept = components[:n]
            estimates[f"pca_{cluster}"] = mean + (x - mean) @ kept.T @ kept, len(kept)
    if "mean" in names:
        estimates["mean"] = np.tile(mean, (len(x), 1)), 0
    return {
        name: Decoded(
            templates=(x_hat := estimate.astype(np.float32)),
            n_features=n,
            l0=float(n),
            fidelity=Fidelity.of(x, x_hat),
        )
        for name, (estimate, n) in estimates.items()
    }


def to_fit_on(
    templates: TemplateSet, pairs: RowPairs, density_templates: TemplateSet | None
) -> tuple[Float32[np.ndarray, "n d_in"], str]:
    """Raw templates that the components and the mean are fitted on, and which they are.

    They are at most 100,000 of `density_templates` if given, else those of the people who are in no pair, if there are
    twice as many as dimensions, else those of the pairs.
    """
    if density_templates is not None:
        rows = _at_most(np.arange(len(density_templates)))
        return density_templates.templates_of(rows), f"{len(rows):,} given templates"
    people = templates.identities
    rows = _at_most(np.flatnonzero(~np.isin(people, people[pairs.rows])))
    if len(rows) >= 2 * templates.width:
        return templates.templates[rows], f"{len(rows):,} templates of people who are in no pair"
    return templates.templates[pairs.rows], f"the {len(pairs.rows):,} templates of the pairs themselves"


def _at_most(rows: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Rows in equal steps, MOST_FITTED at most."""
    return rows[:: max(1, -(-len(rows) // MOST_FITTED))]


def label(name: str, n: int) -> str:
    """The row of the control `name`, of `n` features or components, in words."""
    kind, _, cluster = name.partition("_")
    if kind == "random":
        return f"Decoded from {n:,} random features (as many as {cluster} density)"
    if kind == "energy":
        return f"Decoded from the {n:,} features of most energy (as many as {cluster} density)"
    if kind == "pca":
        return f"Projected on {n:,} principal component{'s' if n > 1 else ''} (the L0 of {cluster} density)"
    return "The mean template for every face"
