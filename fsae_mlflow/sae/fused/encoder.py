"""Encoding on the CPU: the entries that fire, found by a product in fewer dimensions, then computed exactly.

Templates of a recognizer fill few of their dimensions: 99.99 % of their variance lies in 140 to 190 of 512. Let V be
the leading principal directions of templates x minus b_dec, and r what is left of a vector outside of them. Then

    w · x ≤ (V w) · (V x) + ‖r(w)‖ ‖r(x)‖                                     (Cauchy–Schwarz)

so one product in `rank` + 1 dimensions bounds every projection from above. Only entries whose bound exceeds the firing
level are computed, each by one dot product of full width. Hence an entry's value does not depend on the batch or the
shard that its template comes in.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.fused import kernels
from fsae_mlflow.sae.fused.blocks import SPARSE_BELOW, Block, DenseBlock, SparseBlock
from fsae_mlflow.sae.fused.entries import count_above, joined, spans, take_above
from fsae_mlflow.sae.fused.forward import Forward
from fsae_mlflow.sae.terms import Loss

# The bound has this share of ‖w‖ and of ‖x‖ more: their product is many times the rounding of float32.
MARGIN = 2e-3
RANKS = (48, 64, 96, 128, 160, 192, 256, 320)
"""Ranks to choose from, beside the full width."""
SAMPLE_ROWS, TRIED_ROWS, TRIED_FEATURES = 2048, 512, 4096
SCREENED_FROM = 4096
"""Features from which a product in fewer dimensions pays for finding them."""


class Encoder:
    """Encodes templates with a frozen SAE on the CPU; `x` are scaled templates like those that will come."""

    @torch.no_grad()
    def __init__(self, sae: SparseAutoencoder, x: Float[Tensor, "n d_in"]) -> None:
        self.sae = sae
        self.level = sae.firing_level().detach().numpy()
        self.W_enc = sae.W_enc.detach()
        competition = sae.competition
        # Outside training, features that share the places of a batch fire above a threshold of their own.
        self.k = None if competition is None or competition.shared else competition.k
        self.tried = np.arange(0, sae.d_sae, -(-sae.d_sae // TRIED_FEATURES))
        self.directions = self._choose(x[:SAMPLE_ROWS] - sae.b_dec)
        self.weights = self._bounded(self.W_enc)

    @torch.no_grad()
    def entries(self, templates: Float[Tensor, "batch d_in"]) -> Entries:
        """The features of raw templates."""
        found = self._blocks(self.sae.scaled(templates) - self.sae.b_dec, dense=False)
        blocks = [block for block in found if isinstance(block, SparseBlock)]
        parts = [self.sae.activations(block.p, block.expand, None).features.numpy() for block in blocks]
        values = np.concatenate(parts).astype(np.float32, copy=False)
        rows = np.concatenate([block.rows for block in blocks])
        counts = np.concatenate([np.diff(block.indptr) for block in blocks])
        fires = values > 0
        if not fires.all():
            feature = np.repeat(np.arange(self.sae.d_sae), counts)[fires]
            values, rows, counts = values[fires], rows[fires], np.bincount(feature, minlength=self.sae.d_sae)
        indptr = np.concatenate([[0], counts.cumsum()])
        return Entries(n_rows=len(templates), indptr=indptr, rows=rows, values=values)

    @torch.no_grad()
    def decoded(self, entries: Entries) -> Float[Tensor, "batch d_in"]:
        """The scaled templates that entries decode to."""
        W_dec = self.sae.W_dec.detach()
        out = self.sae.b_dec.detach().repeat(1, entries.n_rows, 1)
        values = torch.from_numpy(entries.values).to(W_dec.dtype)[None].numpy()
        kernels.parallel_for(
            kernels.add_decoded,
            W_dec.shape[1],
            entries.indptr,
            entries.rows,
            values,
            W_dec.numpy(),
            out.numpy(),
            multiple=16,
        )
        return out[0]

    @torch.no_grad()
    def loss(self, x: Float[Tensor, "batch d_in"]) -> Loss:
        """The loss of scaled templates, `sae.loss(x, training=False)`, computed from the entries that fire."""
        blocks = self._blocks(x - self.sae.b_dec, dense=True)
        return Forward(self.sae, x, blocks, sparsity_weight=self.sae.settings.sparsity_weight()).loss

    def _blocks(self, centered: Float[Tensor, "batch d_in"], *, dense: bool) -> list[Block]:
        """The entries that fire, by prefix of the loss; with `dense`, those of many as a DenseBlock."""
        centered = centered.contiguous()
        if self.k is not None:
            return [self._largest(centered, self.k)]
        return joined(self._above(centered, dense=dense), self.sae.prefixes)

    def _above(self, centered: Float[Tensor, "batch d_in"], *, dense: bool) -> Iterator[Block]:
        bounds = self._bounded(centered).T
        for first, last in spans(self.sae, len(centered)):
            p, level = (self.weights[first:last] @ bounds).numpy(), self.level[first:last]
            counts = count_above(p, level)
            if dense and counts.sum() > SPARSE_BELOW * p.size:
                yield self._dense(centered, first, last)
                continue
            block = self._exact(centered, first, last, p, counts)
            values, kept = block.p.numpy(), np.empty_like(block.indptr)
            kernels.keep_above(block.indptr, block.rows, values, level, kept)
            yield SparseBlock(first, last, kept, block.rows[: kept[-1]], torch.from_numpy(values[: kept[-1]]))

    def _exact(
        self, centered: Float[Tensor, "batch d_in"], first: int, last: int, p: np.ndarray, counts: np.ndarray
    ) -> SparseBlock:
        """The entries of `p` above the firing level, as many as `counts` says, with their exact projections."""
        indptr, rows, _ = take_above(p, self.level[first:last], counts)
        values, weights = np.empty((1, len(rows)), self.level.dtype), self.W_enc[first:last].numpy()
        kernels.parallel_for(kernels.dot_entries, last - first, indptr, rows, centered[None].numpy(), weights, values)
        return SparseBlock(first, last, indptr, rows, torch.from_numpy(values[0]))

    def _dense(self, centered: Float[Tensor, "batch d_in"], first: int, last: int) -> DenseBlock:
        p, level = self.W_enc[first:last] @ centered.T, torch.from_numpy(self.level)[first:last, None]
        # An entry below the floor is worth nothing.
        return DenseBlock(first, last, torch.where(p > level, p, self.sae.floor()[first:last, None] - 1))

    def _largest(self, centered: Float[Tensor, "batch d_in"], k: int) -> SparseBlock:
        """The k largest positive activations of each template; of equal ones those of the lower features."""
        bounds = self._bounded(centered)
        limit = self._limits(bounds, k)
        row, feature, p, least = self._winners(centered, bounds, limit, k)
        # Fewer than k are above the limit: it may hide some, and the least of those found hides none.
        doubtful = np.flatnonzero(least < limit).astype(np.int32)
        if len(doubtful):
            sure = (least >= limit)[row]
            found = self._winners(centered[doubtful], bounds[doubtful], least[doubtful], k)
            again = doubtful[found[0]], found[1], found[2]
            row, feature, p = (
                np.concatenate([one[sure], new]) for one, new in zip((row, feature, p), again, strict=True)
            )
            order = np.argsort(row, kind="stable")
            row, feature, p = row[order], feature[order], p[order]
        indptr, order = _sorted(feature, self.sae.d_sae)
        return SparseBlock(0, self.sae.d_sae, indptr, row[order], torch.from_numpy(p[order]))

    def _limits(self, bounds: Float[Tensor, "batch rank_and_1"], k: int) -> Float[np.ndarray, " batch"]:
        """An activation of each template, at least 0, above which there are k, as some of the features tell."""
        p = (bounds[:, :-1] @ self.weights[self.tried, :-1].T).numpy() - self.level[self.tried]
        share = k * len(self.tried) / self.sae.d_sae
        place = min(math.ceil(share + 2 * math.sqrt(share)), p.shape[1])
        return np.maximum(np.partition(p, -place, axis=1)[:, -place], 0)

    def _winners(
        self,
        centered: Float[Tensor, "batch d_in"],
        bounds: Float[Tensor, "batch rank_and_1"],
        limit: Float[np.ndarray, " batch"],
        k: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row, feature and projection of the k largest positive activations of each row among those whose bound is
        above the row's limit, by row; and the least activation of each row, 0 where there are fewer than k.
        """
        bounds = torch.cat([bounds, -torch.from_numpy(limit)[:, None]], dim=1).T
        blocks = []
        for first, last in spans(self.sae, len(centered)):
            p = torch.addmm(bounds[-1:], self.weights[first:last], bounds[:-1]).numpy()
            blocks.append(self._exact(centered, first, last, p, count_above(p, self.level[first:last])))
        (found,) = joined(blocks, [self.sae.d_sae])
        assert isinstance(found, SparseBlock)
        start, order = _sorted(found.rows, len(centered))
        row, feature, p = found.rows[order], found.feature.numpy()[order], found.p.numpy()[order]
        kept, least = np.empty(len(row), np.bool_), np.empty_like(limit)
        kernels.parallel_for(kernels.mark_largest, len(centered), start, p - self.level[feature], k, kept, least)
        return row[kept], feature[kept], p[kept], least

    def _bounded(self, vectors: Float[Tensor, "n d_in"]) -> Float[Tensor, "n rank_and_1"]:
        """Vectors such that their products bound the products of `vectors` from above."""
        norms = vectors.norm(dim=1)
        inside = vectors if self.directions is None else vectors @ self.directions
        rest = (norms.square() - inside.square().sum(dim=1)).clamp(min=0).sqrt() if self.directions is not None else 0
        return torch.cat([inside, (rest + MARGIN * norms)[:, None]], dim=1).contiguous()

    def _choose(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "d_in rank"] | None:
        """The leading principal directions with which encoding costs least; None where all dimensions are needed.

        An entry that the bound does not rule out costs as much as 1 / SPARSE_BELOW entries of a product.
        """
        width, d_sae = x.shape[1], self.sae.d_sae
        if d_sae < SCREENED_FROM:
            return None
        directions = torch.linalg.eigh(x.double().T @ x.double()).eigenvectors.flip(1).to(x.dtype)
        x = x[:: -(-len(x) // TRIED_ROWS)]
        features = self.tried
        level = torch.from_numpy(self.level)[features][:, None]
        if self.k is not None:
            projected = self.W_enc[features] @ x.T - level
            level = level + projected.topk(max(1, round(self.k * len(features) / d_sae)), dim=0).values[-1:]
        best, least = None, math.inf
        for rank in (*(rank for rank in RANKS if rank < width), width):
            self.directions = directions[:, :rank].contiguous() if rank < width else None
            bounds = self._bounded(self.W_enc[features]) @ self._bounded(x).T
            cost = rank + width / SPARSE_BELOW * float((bounds > level).float().mean())
            if cost < least:
                best, least = self.directions, cost
        return best


def _sorted(number: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the entries of each number below `n` begin and end in their stable order, and that order."""
    indptr = np.concatenate([[0], np.bincount(number, minlength=n).cumsum()])
    order = np.empty(len(number), np.int64)
    kernels.sort_by_counting(number, indptr[:-1].copy(), order)
    return indptr, order
