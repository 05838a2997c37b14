"""The stage: two or more SAEs → which features are found again in the others, beside the untrained SAEs.

stability.parquet    one row a feature of each SAE: sae (its number, in the order given), feature, n_faces,
                     stability, stability_correlation, and for each other SAE N: cosine_N and match_N (by
                     direction), correlation_N and correlation_match_N (by activation)
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.features.comparison.matching import Matches, match_activations, match_directions
from fsae_mlflow.features.settings import CompareSettings
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.identities import drawn_below, hashed
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet

STABILITY = "stability.parquet"
MOST_ENTRIES = 2**26
"""Entries of an SAE that are compared: 512 MiB, and minutes for the correlations."""
ADVICE = "give one template set for each SAE, templates=A,B, of the same faces, or give force=true to continue anyway"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """An SAE by its name, the templates that it reads, and the untrained SAE of its settings, where it is known."""

    name: str
    sae: SparseAutoencoder
    templates: TemplateSet
    initial: SparseAutoencoder | None = None

    def shares_space(self, other: "Compared") -> bool:
        """Whether both SAEs read templates of one recognizer, so that their directions can be compared."""
        mine, theirs = self.templates.origin.digest, other.templates.origin.digest
        same = mine == theirs if mine and theirs else self.templates.digest == other.templates.digest
        return same and self.sae.d_in == other.sae.d_in


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The matches between two SAEs, by their numbers: by direction, where they share a space, and by activation."""

    first: int
    second: int
    cosine: Matches | None
    correlation: Matches

    @property
    def metrics(self) -> dict[str, float]:
        """Mean similarity and share found again, by kind; those across recognizers are named `across/…`."""
        across = "" if self.cosine else "across/"
        found = {f"{across}correlation/mcc": self.correlation.mcc}
        found[f"{across}correlation/found_again"] = self.correlation.found_again
        if self.cosine:
            found |= {"cosine/pw_mcc": self.cosine.mcc, "cosine/found_again": self.cosine.found_again}
        return found


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All pairs of some SAEs (`pairs`), and of the untrained ones (`initial`; none where one is not known).

    `entries`: the features that fire on the compared faces, by SAE; `rows`: the row of each face in the SAE's set.
    """

    names: list[str]
    rows: list[Int64[np.ndarray, " n_faces"]]
    entries: list[Entries]
    pairs: list[Pair]
    initial: list[Pair]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The means over pairs; those of the untrained SAEs are named `initial/…`."""
        return {
            "n_faces": float(len(self.rows[0])),
            **_means(self.pairs),
            **{f"initial/{name}": value for name, value in _means(self.initial).items()},
        }

    @property
    def headline(self) -> str:
        """The share of features that are found again, beside the same before training."""
        kind = "cosine" if "cosine/found_again" in self.metrics else "across/correlation"
        before = self.metrics.get(f"initial/{kind}/found_again")
        known = "" if before is None else f"; untrained: {100 * before:.1f} %"
        share = 100 * self.metrics[f"{kind}/found_again"]
        return f"{share:.1f} % of the features are found again ({kind.split('/')[-1]} above 0.7){known}"

    def stability(self, number: int) -> dict[str, np.ndarray]:
        """The mean similarity, 0…1, of each feature of one SAE with its matches in the others, 0 for a missing one.

        stability (of cosines) is nan for dead features and where no other SAE shares the space; stability_correlation
        is nan for dead features.
        """
        alive, found = self.entries[number].counts > 0, {}
        for name, kind in (("stability", "cosine"), ("stability_correlation", "correlation")):
            similarities = [similarity for _, similarity, _ in self._matches(kind, number)]
            mean = np.mean(similarities, axis=0) if similarities else np.nan
            found[name] = np.where(alive, mean, np.nan)
        return found

    def columns(self, number: int) -> dict[str, np.ndarray]:
        """The stability of each feature of one SAE, and for each other SAE its match, −1 for none, and the
        similarity.
        """
        found = self.stability(number)
        for prefix, kind in (("", "cosine"), ("correlation_", "correlation")):
            for other, similarity, matched in self._matches(kind, number):
                found |= {f"{kind}_{other}": similarity, f"{prefix}match_{other}": matched}
        return found

    def _matches(
        self, kind: str, number: int
    ) -> Iterator[tuple[int, Float64[np.ndarray, " d_sae"], Int64[np.ndarray, " d_sae"]]]:
        """For each SAE that one SAE is compared with: the similarity of each feature's match, and the match."""
        for pair in self.pairs:
            matches: Matches | None = getattr(pair, kind)
            if number not in (pair.first, pair.second) or matches is None:
                continue
            mine, theirs, other = matches.first, matches.second, pair.second
            if number == pair.second:
                mine, theirs, other = theirs, mine, pair.first
            similarity = np.zeros(self.entries[number].d_sae)
            matched = np.full(len(similarity), -1)
            similarity[mine], matched[mine] = matches.similarity, theirs
            yield other, similarity, matched


def compare(settings: CompareSettings, *, saes: Sequence[Compared], output: Path, on_metrics: OnMetrics) -> Comparison:
    """Match the features of every pair of SAEs, on the same faces, and write stability.parquet to `output`.

    `on_metrics` gets the means over pairs.

    Raises: UserError where an SAE and its templates are of different recognizers, unless `force` is set, and where the
    template sets have no face in common.
    """
    for one in saes:
        require_same_recognizer(one.sae.origin, one.templates.origin, force=settings.force, advice=ADVICE)
    rows = shared_rows([one.templates for one in saes], n_faces=settings.n_faces)
    entries = [_entries(settings, one.sae, one, of) for one, of in zip(saes, rows, strict=True)]
    if short := next((one for one, found in zip(saes, entries, strict=True) if found is None), None):
        raise UserError(
            f"n_faces={settings.n_faces}: {short.name} fires more than {MOST_ENTRIES:,} features on them; give fewer."
        )
    fired = [one for one in entries if one is not None]
    comparison = Comparison(
        names=[one.name for one in saes],
        rows=rows,
        entries=fired,
        pairs=_pairs(saes, [one.sae for one in saes], fired),
        initial=_initial(settings, saes, rows),
    )
    _write(comparison, output / STABILITY)
    on_metrics(comparison.metrics, 0)
    return comparison


def shared_rows(sets: Sequence[TemplateSet], *, n_faces: int) -> list[Int64[np.ndarray, " n"]]:
    """For each set, the rows of the same faces in the same order: about `n_faces`, of people drawn at random; all that
    the sets have in common, if there are no more.

    Raises: UserError where they have none in common.
    """
    first = sets[0]
    chosen = np.flatnonzero(hashed(first.identities) <= drawn_below(n_faces, len(first)))
    if all(one.digest == first.digest for one in sets):
        return [chosen] * len(sets)
    places = [{image_id: row for row, image_id in enumerate(one.image_ids)} for one in sets]
    faces = [first.image_ids[row] for row in chosen]
    faces = [face for face in faces if all(face in place for place in places)]
    if not faces:
        raise UserError(
            f"templates: {' and '.join(str(one.folder) for one in sets)} have no image_id in common, and features are "
            "compared on the same faces; extract all sets from the same pictures."
        )
    return [np.array([place[face] for face in faces], np.int64) for place in places]


def _entries(
    settings: CompareSettings, sae: SparseAutoencoder, one: Compared, rows: Int64[np.ndarray, " n"]
) -> Entries | None:
    """The features that fire on some rows, in this order; None where they are too many."""
    ascending = np.unique(rows)
    templates = one.templates.templates_of(ascending)[np.searchsorted(ascending, rows)]
    sae, parts, n = sae.to(choose_device(settings.device)).eval(), [], 0
    for batch in encoded(sae, templates, batch_size=settings.batch_size, label=f"encode {one.name}"):
        parts.append(batch.entries)
        n += len(batch.entries.rows)
        if n > MOST_ENTRIES:
            return None
    return Entries.joined(parts)


def _initial(
    settings: CompareSettings, saes: Sequence[Compared], rows: Sequence[Int64[np.ndarray, " n"]]
) -> list[Pair]:
    """The pairs of the untrained SAEs; none where one of them is unknown or fires too much."""
    untrained = [one.initial for one in saes if one.initial is not None]
    if len(untrained) < len(saes):
        return []
    found = []
    for sae, one, of in zip(untrained, saes, rows, strict=True):
        entries = _entries(settings, sae, one, of)
        if entries is None:
            logger.warning(
                "The untrained SAE of %s fires more than %s features on %s faces, so the untrained SAEs are left out; "
                "give fewer n_faces to have them.",
                *(one.name, f"{MOST_ENTRIES:,}", f"{len(of):,}"),
            )
            return []
        found.append(entries)
    return _pairs(saes, untrained, found)


def _pairs(saes: Sequence[Compared], networks: Sequence[SparseAutoencoder], entries: Sequence[Entries]) -> list[Pair]:
    found = []
    for a, b in itertools.combinations(range(len(saes)), 2):
        alive = entries[a].counts > 0, entries[b].counts > 0
        shared = saes[a].shares_space(saes[b])
        found.append(
            Pair(
                first=a,
                second=b,
                cosine=match_directions(networks[a], networks[b], *alive) if shared else None,
                correlation=match_activations(entries[a], entries[b]),
            )
        )
    return found


def _means(pairs: Sequence[Pair]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for pair in pairs:
        for name, value in pair.metrics.items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(of)) for name, of in values.items()}


def _write(comparison: Comparison, path: Path) -> None:
    parts = []
    for number, entries in enumerate(comparison.entries):
        features = np.arange(entries.d_sae)
        own = {"sae": np.full(len(features), number), "feature": features, "n_faces": entries.counts}
        parts.append(pa.table(own | comparison.columns(number)))
    table = pa.concat_tables(parts, promote_options="default").replace_schema_metadata(
        {f"sae_{n}": name for n, name in enumerate(comparison.names)}
    )
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary)
