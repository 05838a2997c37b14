"""What a survey found, as plain arrays: made by a survey, or read from features.parquet."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from fsae_mlflow.errors import UserError
from fsae_mlflow.templates.rows import evenly_spaced

QUANTILES = (0.1, 0.5, 0.9, 0.99)
TOP_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class FaceLists:
    """A list of faces for each feature, by falling activation: the first `n` places of its row."""

    rows: Int32[np.ndarray, "d_sae places"]
    activations: Float32[np.ndarray, "d_sae places"]
    n: Int32[np.ndarray, " d_sae"]

    @property
    def used(self) -> Bool[np.ndarray, "d_sae places"]:
        """Which places hold a face."""
        return np.arange(self.rows.shape[1]) < self.n[:, None]

    def first(self, feature: int, most: int) -> "tuple[Int32[np.ndarray, ' k'], Float32[np.ndarray, ' k']]":
        """Rows and activations of the first `most` faces of a feature's list."""
        places = slice(min(int(self.n[feature]), most))
        return self.rows[feature, places], self.activations[feature, places]

    def spread(self, feature: int, most: int) -> "tuple[Int32[np.ndarray, ' k'], Float32[np.ndarray, ' k']]":
        """Rows and activations of at most `most` faces of a feature's list, evenly spaced from first to last."""
        places = evenly_spaced(int(self.n[feature]), most=most)
        return self.rows[feature, places], self.activations[feature, places]

    def followed_by(self, more: "FaceLists") -> "FaceLists":
        """These lists and, after them, those of other features, all with as many places as the longer ones have."""
        places = max(self.rows.shape[1], more.rows.shape[1])

        def joined(name: str) -> np.ndarray:
            parts = (getattr(self, name), getattr(more, name))
            return np.concatenate([np.pad(part, ((0, 0), (0, places - part.shape[1]))) for part in parts])

        return FaceLists(rows=joined("rows"), activations=joined("activations"), n=np.concatenate([self.n, more.n]))

    def kept(self, mask: Bool[np.ndarray, "d_sae places"], *, most: int) -> "FaceLists":
        """The first `most` faces of each list that are in `mask`."""
        mask = mask & self.used
        order = np.argsort(~mask, axis=1, kind="stable")[:, :most]
        return FaceLists(
            rows=np.take_along_axis(self.rows, order, 1),
            activations=np.take_along_axis(self.activations, order, 1),
            n=np.minimum(mask.sum(axis=1), most).astype(np.int32),
        )


@dataclass(frozen=True, kw_only=True)
class Activity:
    """How `n_faces` faces fire each feature.

    `mean`, `std` and `quantiles` (at QUANTILES) are over the faces that fire the feature, nan where none does;
    `percentile` is the 99.9th over all faces. Quantiles are within a few percent. `mean_norm` is the templates' mean
    norm, `fvu` the fraction of their variance that the SAE leaves unexplained.
    """

    n_faces: int
    mean_norm: float
    fvu: float
    counts: Int64[np.ndarray, " d_sae"]
    mean: Float64[np.ndarray, " d_sae"]
    std: Float64[np.ndarray, " d_sae"]
    maxima: Float64[np.ndarray, " d_sae"]
    quantiles: Float64[np.ndarray, "quantiles d_sae"]
    percentile: Float64[np.ndarray, " d_sae"]
    top: FaceLists
    sampled: FaceLists

    @property
    def density(self) -> Float64[np.ndarray, " d_sae"]:
        """Share of the faces, 0…1, that fire each feature."""
        return self.counts / self.n_faces

    @property
    def l0(self) -> float:
        """Mean number of features that a face fires: the sum of the densities."""
        return float(self.counts.sum() / self.n_faces)

    @property
    def contrast(self) -> Float64[np.ndarray, " d_sae"]:
        """The largest activation of each feature divided by its mean; 0 where it never fires."""
        return self.maxima / np.where(self.counts, self.mean, np.inf)

    def top_of(self, feature: int) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
        """The rows of a feature's top faces and their activations, highest first.

        Raises: UserError for a feature that the SAE does not have.
        """
        if not 0 <= feature < len(self.counts):
            raise UserError(f"feature must be a number from 0 to {len(self.counts) - 1}; it is {feature}.")
        first = slice(self.top.n[feature])
        return self.top.rows[feature, first].astype(np.int64), self.top.activations[feature, first]

    def distribution(self, feature: int) -> "tuple[Float64[np.ndarray, ' points'], Float64[np.ndarray, ' points']]":
        """Activations of a feature in ascending order, from 0 to the largest, and the share of all faces, 0…1, at or
        below each: as much of its distribution as is kept.
        """
        density = float(self.density[feature])
        known = [(1 - density, 0.0), (1.0, float(self.maxima[feature]))]
        if density > 0:
            known += [(1 - density * (1 - q), float(self.quantiles[i, feature])) for i, q in enumerate(QUANTILES)]
        if density > TOP_SHARE:
            known.append((1 - TOP_SHARE, float(self.percentile[feature])))
        shares, values = np.array(sorted(known)).T
        return np.maximum.accumulate(values), shares

    def followed_by(self, more: "Activity") -> "Activity":
        """The features of another survey of the same faces behind those of this one."""
        joined = {
            name: np.concatenate([getattr(self, name), getattr(more, name)], axis=-1)
            for name in ("counts", "mean", "std", "maxima", "quantiles", "percentile")
        }
        return replace(
            self, **joined, top=self.top.followed_by(more.top), sampled=self.sampled.followed_by(more.sampled)
        )

    def with_top(self, top: FaceLists) -> "Activity":
        """The same activity with other lists of top faces."""
        return replace(self, top=top)
