"""Training templates in batches, from memory where they fit, else streamed through a shuffle window."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet

BATCH_TO_MEASURE = 1024


@dataclass(frozen=True)
class TrainingData:
    """The templates of one side of the split, in the recognizer's units; `rows` marks the side's rows of the set.

    At most `max_bytes` of templates are in memory at a time, beside one shard that is being read. A larger set passes
    through a window of that size in the set's order, shuffled within the window.
    """

    templates: TemplateSet
    rows: Bool[np.ndarray, " n"]
    max_bytes: int

    def __len__(self) -> int:
        return int(self.rows.sum())

    @property
    def fits(self) -> bool:
        """Whether the whole set stays within the memory bound."""
        return len(self.templates) * self._row_bytes <= self.max_bytes

    @property
    def _row_bytes(self) -> int:
        return self.templates.width * 4

    def batches(self, size: int, generator: torch.Generator) -> Iterator[Float[Tensor, "batch d_in"]]:
        """All rows once, in shuffled batches of `size`; the last may be smaller."""
        rest: list[Tensor] = []
        n_rest = 0
        for window in self._windows():
            order = torch.randperm(len(window), generator=generator)
            start = 0
            if n_rest:
                start = min(size - n_rest, len(window))
                rest.append(window[order[:start]])
                n_rest += start
                if n_rest < size:
                    continue
                yield torch.cat(rest)
                rest, n_rest = [], 0
            for first in range(start, len(order), size):
                batch = window[order[first : first + size]]
                if len(batch) < size:
                    rest, n_rest = [batch], len(batch)
                else:
                    yield batch
        if rest:
            yield torch.cat(rest)

    def sample(self, n: int) -> Float[Tensor, "n_sampled d_in"]:
        """At most `n` rows, evenly spaced over the set, which stands sorted by person."""
        stride = max(1, -(-len(self) // n))
        taken, passed = [], 0
        for chunk in self._chunks():
            taken.append(chunk[-passed % stride :: stride])
            passed += len(chunk)
        return torch.cat(taken) if taken else torch.zeros(0, self.templates.width)

    def in_order(self) -> Iterator[Float[Tensor, "batch d_in"]]:
        """All rows once, in the set's order."""
        for chunk in self._chunks():
            if len(chunk):  # a shard can be without rows of this side
                yield from chunk.split(BATCH_TO_MEASURE)

    def _windows(self) -> Iterator[Tensor]:
        if self.fits:
            yield self._resident
            return
        room = max(1, self.max_bytes // self._row_bytes)
        window, filled = torch.empty(room, self.templates.width), 0
        for chunk in self._chunks():
            while len(chunk):
                taken = chunk[: room - filled]
                window[filled : filled + len(taken)] = taken
                filled, chunk = filled + len(taken), chunk[len(taken) :]
                if filled == room:
                    yield window
                    filled = 0
        yield window[:filled]

    @cached_property
    def _resident(self) -> Float[Tensor, "n_rows d_in"]:
        return torch.from_numpy(self.templates.templates[self.rows])

    def _chunks(self) -> Iterator[Float[Tensor, "chunk d_in"]]:
        if self.fits:
            yield self._resident
            return
        first = 0
        for chunk in self.templates.chunks("template"):
            yield torch.from_numpy(chunk[self.rows[first : first + len(chunk)]])
            first += len(chunk)


def fit_scaling(sae: SparseAutoencoder, data: TrainingData, *, center: bool) -> None:
    """Set the SAE's center, its scale (so that E‖x‖² = 1) and its decoder's bias, the mean template, from the
    training rows.
    """
    total, squares, n = np.zeros(sae.d_in), 0.0, 0
    for batch in progress(data.in_order(), total=len(data), label="scaling", unit="templates", size=len):
        rows = torch.nn.functional.normalize(batch.double(), dim=1) if sae.normalize else batch.double()
        total += rows.sum(dim=0).numpy()
        squares += float(rows.square().sum())
        n += len(rows)
    mean = torch.from_numpy(total / n)
    if center:
        sae.center.copy_(mean)
        squares -= n * float(mean.square().sum())
    with torch.no_grad():
        sae.scale.fill_((n / squares) ** 0.5)
        sae.b_dec.copy_((mean - sae.center) * sae.scale)
