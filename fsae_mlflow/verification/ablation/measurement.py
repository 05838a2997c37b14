"""The ablation: how verification changes where each feature, and each reading, is left out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from scipy import stats

from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.features.readings.sentences import kinds_of
from fsae_mlflow.report.tables import write_csv
from fsae_mlflow.report.verification.ablation import ReadingChange, ablation_figure
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.ablation.kernels import leave_out_each, rates
from fsae_mlflow.verification.pairs import RowPairs
from fsae_mlflow.verification.protocol import allowed_impostors, squared_distances
from fsae_mlflow.verification.tables import loggable

FARS = (1e-2, 1e-3)
RATES = ("tar_at_far_1e-2", "tar_at_far_1e-3", "eer")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What leaving something out changes: in how many pairs, and each of RATES (columns), with 95 % intervals.

    Changes are differences of shares, −1…1: negative where the rate falls. nan where there are too few pairs.
    """

    n_pairs: Int64[np.ndarray, " n"]
    change: Float64[np.ndarray, "n 3"]
    low: Float64[np.ndarray, "n 3"]
    high: Float64[np.ndarray, "n 3"]

    @classmethod
    def of(
        cls,
        n_pairs: Int64[np.ndarray, " n"],
        found: Float64[np.ndarray, "n 3 outs"],
        whole: Float64[np.ndarray, "3 outs"],
    ) -> "Changes":
        """The changes from the rates `whole` to the rates `found`, of all pairs and of all but one fold.

        Intervals: ± t · s of the delete-one-fold jackknife, s² = (k − 1)/k Σ (θ₋ᵢ − mean)², Student's t with k − 1
        degrees of freedom. Folds that share no people are independent, pairs are not.
        """
        difference = found - whole
        without_fold = difference[..., 1:]
        k = without_fold.shape[-1]
        squares = np.square(without_fold - without_fold.mean(axis=-1, keepdims=True)).sum(axis=-1)
        half = stats.t.ppf(0.975, k - 1) * np.sqrt((k - 1) / k * squares)
        change = difference[..., 0]
        return cls(n_pairs=n_pairs, change=change, low=change - half, high=change + half)

    @property
    def columns(self) -> list[list[int | float]]:
        """For each row: n_pairs, then change, low and high of each rate."""
        both = np.stack([self.change, self.low, self.high], axis=2).reshape(len(self.change), -1)
        return [[n, *values] for n, values in zip(self.n_pairs.tolist(), both.tolist(), strict=True)]


HEADER = ["n_pairs", *(f"{rate}_{name}" for rate in RATES for name in ("change", "low", "high"))]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The rates of templates decoded from all features, and the changes by feature and by reading.

    `kinds`: what each feature is read as; "" without readings. `readings`: the changes in the order of `names`, which
    stand for `sizes` features each.
    """

    whole: Float64[np.ndarray, " 3"]
    features: Changes
    kinds: Shaped[np.ndarray, " d_sae"]
    names: list[str]
    sizes: list[int]
    readings: Changes
    files: list[Path]

    @property
    def metrics(self) -> dict[str, float]:
        """The largest changes of single features, and those of every reading."""
        found = {}
        for column, rate in enumerate(RATES):
            of_features = self.features.change[:, column]
            found[f"ablation/features/{rate}_lowest"] = float(of_features.min())
            found[f"ablation/features/{rate}_highest"] = float(of_features.max())
            for name, change in zip(self.names, self.readings.change[:, column].tolist(), strict=True):
                found[f"ablation/{loggable(name)}/{rate}"] = change
        return {name: value for name, value in found.items() if math.isfinite(value)}


class Verifier:
    """Pairs of decoded templates, ready to be verified again and again without some features.

    `templates` are those of the pairs' rows. Rates are TAR at FAR 1e-2 and 1e-3 and EER, of all pairs and of all but
    each fold.
    """

    def __init__(
        self, sae: SparseAutoencoder, templates: Float32[np.ndarray, "n d_in"], pairs: RowPairs, *, batch_size: int
    ) -> None:
        entries, decoded = [], []
        for batch in encoded(sae, templates, batch_size=batch_size, label="ablation"):
            entries.append(batch.entries)
            decoded.append((batch.decoded / sae.scale + sae.center).cpu().numpy())
        self.entries, self.decoded = Entries.joined(entries), np.concatenate(decoded)
        self.W_dec = sae.W_dec.detach().cpu().numpy()
        # Per unit of activation a feature adds this share of its decoder row.
        self.values = self.entries.values.astype(np.float64) / float(sae.scale)
        rows = pairs.rows
        self.first, self.second = np.searchsorted(rows, pairs.first), np.searchsorted(rows, pairs.second)
        self.set_pairs(pairs, squared_distances(self.decoded[self.first], self.decoded[self.second]))

    def set_pairs(self, pairs: RowPairs, distances: Float64[np.ndarray, " pairs"]) -> None:
        """Take over the pairs and their distances."""
        inside = np.hstack([np.ones((len(pairs), 1), bool), pairs.fold[:, None] != np.arange(pairs.n_folds)])
        n_genuine, n_impostor = (inside[side].sum(axis=0) for side in (pairs.genuine, ~pairs.genuine))
        allowed = np.array([[allowed_impostors(far, n) for n in n_impostor.tolist()] for far in FARS])
        order = np.argsort(distances, kind="stable")
        self._sides = order, distances, pairs.genuine, pairs.fold, n_genuine, n_impostor, allowed
        self.shape = len(RATES), len(n_genuine)

    @cached_property
    def whole(self) -> Float64[np.ndarray, "3 outs"]:
        """The rates with all features."""
        return self.rates_with(np.zeros(0, np.int64), np.zeros(0))

    def without_each(self) -> tuple[Int64[np.ndarray, " d_sae"], Float64[np.ndarray, "d_sae 3 outs"]]:
        """For each feature: in how many pairs it fires, and the rates without it."""
        d_sae = self.entries.d_sae
        images = np.concatenate([self.first, self.second])
        of_image = np.argsort(images, kind="stable") % len(self.first)
        starts = np.concatenate([[0], np.bincount(images, minlength=len(self.decoded)).cumsum()])
        wide = self.decoded.astype(np.float64)
        dots = (wide[self.first] * wide[self.second]).sum(axis=1)
        n_pairs, found = np.zeros(d_sae, np.int64), np.empty((d_sae, *self.shape))
        arguments = (self.entries.indptr, self.entries.rows, self.values, self.W_dec, self.decoded, dots)
        squares = np.square(wide).sum(axis=1)
        of_pairs = (squares, self.first, self.second, starts, of_image, self._sides, n_pairs, found)
        parallel_for(leave_out_each, d_sae, *arguments, *of_pairs)
        return n_pairs, found

    def without(self, features: Shaped[np.ndarray, " d_sae"]) -> tuple[int, Float64[np.ndarray, "3 outs"]]:
        """In how many pairs one of the features fires, and the rates without all of them."""
        table = self.entries.table(self.values)[np.flatnonzero(features)]
        left = self.decoded - table.T @ self.W_dec[features].astype(np.float64)
        fired = np.bincount(table.indices, minlength=len(left)) > 0
        pairs = np.flatnonzero(fired[self.first] | fired[self.second])
        distances = squared_distances(left[self.first[pairs]], left[self.second[pairs]])
        return len(pairs), self.rates_with(pairs, distances)

    def rates_with(
        self, pairs: Int64[np.ndarray, " n"], distances: Float64[np.ndarray, " n"]
    ) -> Float64[np.ndarray, "3 outs"]:
        """The rates where these pairs have other distances."""
        found, changed = np.empty(self.shape), np.zeros(len(self._sides[0]), dtype=bool)
        changed[pairs] = True
        rates(pairs, distances, changed, self._sides, found)
        return found


def ablate(
    readings: Mapping[str, Shaped[np.ndarray, " d_sae"]] | None,
    *,
    sae: SparseAutoencoder,
    templates: TemplateSet,
    pairs: RowPairs,
    output: Path,
    batch_size: int = 512,
) -> Ablation:
    """Verify the pairs with templates decoded without each feature, and without each reading: all features of which the
    same attribute, or a person, a pose or the same property is read first.

    `readings` are the columns of features.parquet. Writes to `output` ablation.csv (a line a feature), and, of
    readings, ablation_readings.csv and ablation.png, of the 15 that change most.
    """
    verifier = Verifier(sae, templates.templates_of(pairs.rows), pairs, batch_size=batch_size)
    features = Changes.of(*verifier.without_each(), verifier.whole)
    kinds, sentences = _read_as(readings, sae.d_sae)
    names = sorted(set(kinds.tolist()) - {""})
    sizes = [int((kinds == name).sum()) for name in names]
    found = [verifier.without(kinds == name) for name in names]
    of_readings = Changes.of(
        np.array([n for n, _ in found], np.int64),
        np.array([one for _, one in found]).reshape(-1, *verifier.shape),
        verifier.whole,
    )
    ablation = Ablation(
        whole=verifier.whole[:, 0],
        features=features,
        kinds=kinds,
        names=names,
        sizes=sizes,
        readings=of_readings,
        files=[],
    )
    return replace(ablation, files=_write(ablation, sentences, output, n_pairs=len(pairs)))


def _read_as(
    readings: Mapping[str, Shaped[np.ndarray, " d_sae"]] | None, d_sae: int
) -> tuple[Shaped[np.ndarray, " d_sae"], Sequence[str]]:
    """What is read first of each feature, and its sentence; empty without readings, and for dead features."""
    if readings is None:
        return np.full(d_sae, ""), [""] * d_sae
    sentences = readings["reading"].astype(str)
    kinds = np.where(sentences == "dead", "", kinds_of(readings))
    return kinds, sentences.tolist()


def _write(ablation: Ablation, sentences: Sequence[str], output: Path, *, n_pairs: int) -> list[Path]:
    features, readings = ablation.features, ablation.readings
    numbered = zip(ablation.kinds.tolist(), sentences, features.columns, strict=True)
    lines = [[feature, sentence, kind, *values] for feature, (kind, sentence, values) in enumerate(numbered)]
    files = [write_csv(output / "ablation.csv", [["feature", "reading", "read_as", *HEADER], *lines])]
    if not ablation.names:
        return files
    of_readings = [
        [*both, *values] for *both, values in zip(ablation.names, ablation.sizes, readings.columns, strict=True)
    ]
    bars = [
        ReadingChange(
            name=name,
            n_features=size,
            change=readings.change[place].tolist(),
            low=readings.low[place].tolist(),
            high=readings.high[place].tolist(),
        )
        for place, (name, size) in enumerate(zip(ablation.names, ablation.sizes, strict=True))
    ]
    return [
        *files,
        write_csv(output / "ablation_readings.csv", [["reading", "n_features", *HEADER], *of_readings]),
        ablation_figure(bars, ablation.whole.tolist(), output / "ablation.png", n_pairs=n_pairs),
    ]
