"""One pass over a template set: how often and how strongly each feature fires, and on which rows most."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from fsae_mlflow.metrics import Sparsity
from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet

WAITING = 2**18
"""Entries that are gathered before they are sorted."""


class TopRows:
    """The `k` rows that fire each feature most, found batch by batch; of equal activations the earlier row stays.

    Memory: 20 bytes per entry (feature, activation, row). There are at most d_sae · k entries and at most n · L0; while
    batches are added, up to twice as many and 2^18 more.
    """

    def __init__(self, d_sae: int, k: int) -> None:
        self.k = k
        self._least = torch.zeros(d_sae)  # what a later row must exceed to be among the k
        none = torch.zeros(0, dtype=torch.int64)
        self._parts = [(none, torch.zeros(0), none)]

    def add(self, features: Float[Tensor, "batch d_sae"], *, first: int) -> None:
        """Add a batch whose first template is row `first`; batches come in row order."""
        self._least = self._least.to(features.device)
        rows, indices = (features > self._least).nonzero(as_tuple=True)
        self._parts.append((indices, features[rows, indices].float(), rows + first))
        if sum(len(rows) for *_, rows in self._parts[1:]) > max(WAITING, len(self._parts[0][0])):
            self._sorted()

    def of(self, feature: int) -> tuple[Int64[np.ndarray, " rows"], Float32[np.ndarray, " rows"]]:
        """The rows, at most `k`, that fire a feature most, and their activations, highest first.

        Raises: ValueError for a feature that the SAE does not have.
        """
        if not 0 <= feature < len(self._least):
            raise ValueError(f"feature must be a number from 0 to {len(self._least) - 1}; it is {feature}.")
        indices, activations, rows = self._sorted()
        first, last = torch.searchsorted(indices, torch.tensor([feature, feature + 1], device=indices.device)).tolist()
        return rows[first:last].cpu().numpy(), activations[first:last].cpu().numpy()

    @property
    def maxima(self) -> Float32[np.ndarray, " d_sae"]:
        """Each feature's largest activation; 0 where it never fires."""
        indices, activations, _ = self._sorted()
        highest = torch.zeros_like(self._least)
        return highest.scatter_reduce(0, indices, activations, "amax").cpu().numpy()

    def _sorted(self) -> tuple[Int64[Tensor, " n"], Float32[Tensor, " n"], Int64[Tensor, " n"]]:
        """The entries so far by feature, then by falling activation, then by row, cut to `k` a feature."""
        if len(self._parts) > 1:
            device = self._least.device
            indices, activations, rows = (
                torch.cat([part.to(device) for part in parts]) for parts in zip(*self._parts, strict=True)
            )
            order = activations.argsort(descending=True, stable=True)
            order = order[indices[order].argsort(stable=True)]
            counts = indices.bincount(minlength=len(self._least))
            starts = counts.cumsum(0) - counts
            place = torch.arange(len(order), device=device) - starts[indices[order]]
            kept = order[place < self.k]
            self._parts = [(indices[kept], activations[kept], rows[kept])]
            full = counts >= self.k
            self._least[full] = activations[order[starts[full] + self.k - 1]]
        return self._parts[0]


class Survey(Sparsity):
    """How one template set fires the features of an SAE, and the `k` rows that fire each most (`top`).

    Surveys of parts of a set could be merged exactly: counts and sums add up, and so do the top rows, cut to `k` again.
    """

    def __init__(self, d_sae: int, *, k: int = 1) -> None:
        super().__init__(d_sae)
        self.top = TopRows(d_sae, k)
        self._sums = torch.zeros(d_sae, dtype=torch.float64)

    @torch.no_grad()
    def add(self, features: Float[Tensor, "n d_sae"] | Float[np.ndarray, "n d_sae"]) -> None:
        """Add the features of the next rows."""
        features = torch.as_tensor(features)
        self.top.add(features, first=self.n)
        self._sums = self._sums.to(features.device) + features.sum(dim=0)
        super().add(features)

    @property
    def sums(self) -> Float64[np.ndarray, " d_sae"]:
        """Each feature's activations summed over all templates."""
        return self._sums.cpu().numpy()


def survey(
    sae: SparseAutoencoder, templates: TemplateSet | Float32[np.ndarray, "n d_in"], *, k: int = 1, batch_size: int = 512
) -> Survey:
    """Count, in one pass, how often and how strongly raw templates fire each feature, and keep its top `k` rows.

    Raises: ValueError without templates, or where their width differs from the SAE's d_in.
    """
    found = Survey(sae.d_sae, k=k)
    for _, features in encoded(sae, templates, batch_size=batch_size):
        found.add(features)
    return found


@torch.no_grad()
def encoded(
    sae: SparseAutoencoder,
    templates: TemplateSet | Float32[np.ndarray, "n d_in"],
    *,
    batch_size: int,
    label: str = "encode",
) -> Iterator[tuple[Float[Tensor, "batch d_in"], Float[Tensor, "batch d_sae"]]]:
    """Raw templates and their features batch by batch, on the SAE's device; a template set is read shard by shard.

    Raises: ValueError without templates, or where their width differs from the SAE's d_in.
    """
    if len(templates) == 0:
        raise ValueError("templates: the set is empty; extract some faces first.")
    parts = [templates] if isinstance(templates, np.ndarray) else templates.chunks("template")
    batches = (part[first : first + batch_size] for part in parts for first in range(0, len(part), batch_size))
    for batch in progress(batches, total=math.ceil(len(templates) / batch_size), label=label, unit="batches"):
        x = torch.tensor(batch, device=sae.W_dec.device)
        yield x, sae.encode(x)
