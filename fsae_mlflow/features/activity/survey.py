"""One pass over templates: how often and how strongly each feature fires, and on which faces.

Counts, sums of multiples of 2⁻²⁴, and lists in a total order merge exactly, whatever the batches, shards and processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int32, Int64, UInt64
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity import accumulation
from fsae_mlflow.features.activity.summary import QUANTILES, TOP_SHARE, Activity, FaceLists
from fsae_mlflow.features.statistics.top_shares import MOST_OF_A_PERSON
from fsae_mlflow.identities import drawn_below, hashed
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused.kernels import parallel_for
from fsae_mlflow.sae.sparse import SparseEncoder, sparse_encoder
from fsae_mlflow.templates.set import TemplateSet

N_SAMPLED = 32
MOST_PARTS = 64
N_RESEMBLED = 2048  # templates that tell an encoder what those to come are like


@dataclass
class Survey:
    """How templates fire the features of an SAE.

    Of each feature it keeps `most` top faces (the largest activations, at most 3 of a person, the earlier row of equal
    ones) and 32 faces drawn uniformly from all that fire it. `rows` and `entries` are those of the faces that are read:
    all faces of people whose hashed identity is at most `read_below`. Memory: 1 kB and 24 · `most` bytes a feature, 4
    bytes a face, and 8 bytes an entry of the read faces.
    """

    d_sae: int
    most: int
    read_below: int = 0
    fidelity: Fidelity = field(default_factory=Fidelity)

    def __post_init__(self) -> None:
        n, lists = self.d_sae, (self.d_sae, 2 * self.most)
        self.l0s: list[Int32[np.ndarray, " batch"]] = []
        self._rows: list[Int64[np.ndarray, " batch"]] = []
        self._entries: list[Entries] = []
        self._sums, self._squares, self._norms = np.zeros(n), np.zeros(n), np.zeros(1)
        self._histogram = np.zeros((n, accumulation.N_BINS), np.uint32)
        self._n_top, self._limit = np.zeros(n, np.int32), np.zeros(n, np.float32)
        self._top = np.zeros(lists, np.float32), np.zeros(lists, np.int32), np.zeros(lists, np.int32)
        self._n_sampled, drawn = np.zeros(n, np.int32), (n, N_SAMPLED)
        self._sampled = np.zeros(drawn, np.uint64), np.zeros(drawn, np.float32), np.zeros(drawn, np.int32)

    def add(
        self,
        entries: Entries,
        people: UInt64[np.ndarray, " batch"],
        *,
        first: int,
        norms: Float32[np.ndarray, " batch"] | None = None,
    ) -> None:
        """Add consecutive templates from row `first` on: their features, hashed people and norms."""
        parallel_for(
            accumulation.add_entries,
            self.d_sae,
            *(entries.indptr, entries.rows, entries.values, first, people.astype(np.int32)),
            *(self._sums, self._squares, self._histogram, *self._lists),
        )
        self.l0s.append(entries.per_row().astype(np.int32))
        if norms is not None:
            self._norms += (norms.astype(np.float64) / accumulation.STEP).round().sum() * accumulation.STEP
        if (read := people <= self.read_below).any():
            self._rows.append(first + np.flatnonzero(read))
            self._entries.append(entries if read.all() else entries.of_rows(read))
            if len(self._entries) > MOST_PARTS:  # each has a number for every feature, however few its entries are
                self._entries = [Entries.joined(self._entries)]

    def merge(self, later: "Survey") -> None:
        """Add a survey of the rows that follow."""
        for mine, other in zip(self._totals, later._totals, strict=True):
            mine += other
        parallel_for(
            accumulation.add_kept,
            self.d_sae,
            *(later._n_top, *later._top, later._n_sampled, *later._sampled[1:], *self._lists),
        )
        self.l0s += later.l0s
        self._rows += later._rows
        self._entries += later._entries
        self.fidelity.merge(later.fidelity)

    @property
    def n(self) -> int:
        """The number of templates."""
        return sum(map(len, self.l0s))

    @property
    def activity(self) -> Activity:
        """What the survey found.

        Raises: UserError where nothing was added.
        """
        if self.n == 0:
            raise UserError("There are no templates to survey; give a template set with at least one row.")
        counts = self._histogram.sum(axis=1, dtype=np.int64)
        fired = np.where(counts, counts, np.nan)
        mean, maxima = self._sums / fired, self._top[0].max(axis=1).astype(np.float64)
        below = [q * counts for q in QUANTILES] + [counts - TOP_SHARE * self.n]
        *quantiles, percentile = (np.minimum(value, maxima) for value in self._quantiles(below))
        return Activity(
            n_faces=self.n,
            mean_norm=float(self._norms[0] / self.n),
            fvu=self.fidelity.fvu if self.fidelity.n else float("nan"),
            counts=counts,
            mean=mean,
            std=np.sqrt(np.maximum(self._squares / fired - mean**2, 0)),
            maxima=maxima,
            quantiles=np.where(counts, np.stack(quantiles), np.nan),
            percentile=np.where(counts > TOP_SHARE * self.n, percentile, 0.0),
            top=self._top_faces(),
            sampled=self._sampled_faces(),
        )

    def _quantiles(self, numbers: Sequence[Float64[np.ndarray, " d_sae"]]) -> Iterator[Float64[np.ndarray, " d_sae"]]:
        """For each of `numbers`, the activation with so many of the feature's below it, interpolated within its bin."""
        reached, features = self._histogram.cumsum(axis=1, dtype=np.int64), np.arange(self.d_sae)
        for below in numbers:
            place = (reached < below[:, None]).sum(axis=1).clip(max=accumulation.N_BINS - 1)
            inside = np.maximum(self._histogram[features, place], 1)
            share = (1 - (reached[features, place] - below) / inside).clip(0, 1)
            octave, step = np.divmod(place + share, accumulation.BINS_PER_OCTAVE)
            yield 2.0 ** (octave + accumulation.SMALLEST_EXPONENT) * (1 + step / accumulation.BINS_PER_OCTAVE)

    def _top_faces(self) -> FaceLists:
        self._settle()
        values, rows, _ = self._top
        return FaceLists(rows=rows[:, : self.most], activations=values[:, : self.most], n=self._n_top)

    def _sampled_faces(self) -> FaceLists:
        _, values, rows = self._sampled
        used = np.arange(N_SAMPLED) < self._n_sampled[:, None]
        order = np.lexsort((rows, np.where(used, -values, np.inf)), axis=1)
        return FaceLists(
            rows=np.take_along_axis(rows, order, 1),
            activations=np.take_along_axis(values, order, 1),
            n=self._n_sampled,
        )

    @property
    def read(self) -> tuple[Int64[np.ndarray, " n"], Entries]:
        """The rows of the faces that are read, ascending, and their entries."""
        if not self._rows:
            return np.zeros(0, np.int64), Entries.of(np.zeros((0, self.d_sae), np.float32))
        return np.concatenate(self._rows), Entries.joined(self._entries)

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the survey holds, as arrays."""
        self._settle()
        rows, entries = self.read
        return {
            **{f"list{number}": array for number, array in enumerate(self._arrays)},
            "scalars": np.array([self.most, self.read_below], np.uint64),
            "l0": np.concatenate(self.l0s) if self.l0s else np.zeros(0, np.int32),
            "rows": rows,
            "indptr": entries.indptr,
            "entry_rows": entries.rows,
            "values": entries.values,
            **{f"fidelity.{name}": value for name, value in self.fidelity.state().items()},
        }

    @classmethod
    def of(cls, state: dict[str, np.ndarray]) -> "Survey":
        """The survey that gave `state`."""
        most, read_below = state["scalars"].tolist()
        found = cls(len(state["indptr"]) - 1, most, read_below)
        for number, array in enumerate(found._arrays):
            array[...] = state[f"list{number}"]
        found.l0s = [state["l0"]]
        found._rows = [state["rows"]]
        n_rows = len(state["rows"])
        found._entries = [
            Entries(n_rows=n_rows, indptr=state["indptr"], rows=state["entry_rows"], values=state["values"])
        ]
        fidelity = {name.removeprefix("fidelity."): value for name, value in state.items() if name.startswith("fid")}
        found.fidelity = Fidelity.of_state(fidelity)
        return found

    def _settle(self) -> None:
        parallel_for(accumulation.settle, self.d_sae, *self._lists[:7])

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return (*self._totals, self._n_top, self._limit, *self._top, self._n_sampled, *self._sampled)

    @property
    def _totals(self) -> tuple[np.ndarray, ...]:
        return self._sums, self._squares, self._norms, self._histogram

    @property
    def _lists(self) -> tuple[object, ...]:
        return self.most, MOST_OF_A_PERSON, self._n_top, self._limit, *self._top, self._n_sampled, *self._sampled


@torch.no_grad()
def survey(
    sae: SparseAutoencoder,
    templates: TemplateSet | Float32[np.ndarray, "n d_in"],
    *,
    most: int = 24,
    read_faces: int = 0,
    batch_size: int = 1024,
    ranks: Ranks | None = None,
) -> Survey:
    """Survey raw templates. Of an array each row is a person.

    The faces that are read are about `read_faces`, of people drawn at random; all, if there are no more. Of several
    `ranks` each encodes a part of the rows; the first one returns the whole survey, the others that of their part.

    Raises: UserError without templates, or where their width differs from the SAE's d_in.
    """
    ranks = ranks or Ranks()
    n = len(templates)
    found = Survey(sae.d_sae, most, read_below=drawn_below(read_faces, n))
    for batch in encoded(sae, templates, batch_size=batch_size, rows=ranks.part(n)):
        found.add(batch.entries, batch.people, first=batch.first, norms=np.linalg.norm(batch.templates, axis=1))
        found.fidelity.add(batch.x, batch.decoded)
    for later in ranks.later(found.state):
        found.merge(Survey.of(later))
    return found


@dataclass(frozen=True)
class EncodedBatch:
    """Consecutive templates, the first of which is row `first`, and their features; `people` are hashed identities."""

    first: int
    templates: Float32[np.ndarray, "n d_in"]
    people: UInt64[np.ndarray, " n"]
    entries: Entries
    sae: SparseAutoencoder
    encoder: SparseEncoder

    @property
    def x(self) -> Float[Tensor, "n d_in"]:
        """The scaled templates."""
        return self.sae.scaled(torch.tensor(self.templates, device=self.sae.W_dec.device))

    @property
    def decoded(self) -> Float[Tensor, "n d_in"]:
        """The scaled templates that all features decode to."""
        return self.encoder.decoded(self.entries)


@torch.no_grad()
def encoded(
    sae: SparseAutoencoder,
    templates: TemplateSet | Float32[np.ndarray, "n d_in"],
    *,
    batch_size: int,
    label: str = "encode",
    rows: slice = slice(None),
) -> Iterator[EncodedBatch]:
    """Raw templates and their features batch by batch; a template set is read shard by shard.

    Raises: UserError without templates, or where their width differs from the SAE's d_in.
    """
    if len(templates) == 0:
        raise UserError("templates: the set is empty; extract some faces first.")
    start, stop, _ = rows.indices(len(templates))
    batches = _encoded(sae, templates, slice(start, stop), batch_size)
    yield from progress(batches, total=stop - start, label=label, unit="templates", size=lambda one: len(one.templates))


def _encoded(
    sae: SparseAutoencoder, templates: TemplateSet | Float32[np.ndarray, "n d_in"], rows: slice, batch_size: int
) -> Iterator[EncodedBatch]:
    if isinstance(templates, np.ndarray):
        parts = iter([(rows.start, templates[rows], np.arange(rows.start, rows.stop))])
    else:
        parts = templates.batches(rows=rows)
    device, encoder = sae.W_dec.device, None
    for first, part, identities in parts:
        people = hashed(identities)
        for start in range(0, len(part), batch_size):
            if encoder is None:
                # A set stands sorted by person: its first rows vary less than all.
                some = part[:: -(-len(part) // N_RESEMBLED)]
                encoder = sparse_encoder(sae, torch.tensor(some, device=device))
            inside = slice(start, start + batch_size)
            entries = encoder.entries(torch.tensor(part[inside], device=device))
            yield EncodedBatch(first + start, part[inside], people[inside], entries, sae, encoder)
