"""The entries of a batch that a training step needs: those above their feature's floor, or those that win a
competition.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Bool, Float
from llvmlite.binding import get_host_cpu_features
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.fused import kernels
from fsae_mlflow.sae.fused.blocks import SPARSE_BELOW, Block, DenseBlock, SparseBlock
from fsae_mlflow.sae.variants.topk import TopKSAE

# Entries of one dense product: small enough to stay in a last-level cache until they are sifted.
BLOCK_ENTRIES = 1 << 22
# Rounding both factors, the product and the floor to bfloat16 moves a comparison by less than this times ‖x‖‖w‖: 4 ·
# 2⁻⁹ and a margin.
BFLOAT16_ERROR = 0.008
COMPETING_SPANS = 8


def spans(sae: SparseAutoencoder, batch: int) -> Iterator[tuple[int, int]]:
    """Runs of features for one product each, none across a border between the loss's prefixes."""
    size = max(64, BLOCK_ENTRIES // batch)
    start = 0
    for stop in sae.prefixes:
        for first in range(start, stop, size):
            yield first, min(first + size, stop)
        start = stop


def above_floor(sae: SparseAutoencoder, centerd: Float[Tensor, "batch d_in"], *, screened: bool) -> Iterator[Block]:
    """The entries above `sae.floor()`, block by block, each block sparse or dense by its own density.

    `screened` looks in bfloat16 first and computes in full precision only what that cannot rule out: the same entries
    with the same values, in about half the time where the processor multiplies bfloat16.
    """
    floor, W_enc = sae.floor().detach().numpy(), sae.W_enc.detach()
    screen = _Screen(centerd) if screened else None
    for first, last in spans(sae, len(centerd)):
        weights, limit = W_enc[first:last], floor[first:last]
        if screen is not None:
            found = screen.above(first, weights, limit)
            if found is not None:
                yield found
                continue
            # Where one block is dense its neighbors mostly are: looking first would not pay.
            screen = None
        p = weights @ centerd.T
        yield _above(first, p, limit) or DenseBlock(first, last, p)


def screening_pays(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    features = get_host_cpu_features()
    return dtype == torch.float32 and any(features.get(name, False) for name in ("avx512bf16", "amx-bf16"))


def _above(first: int, p: Float[Tensor, "n batch"], floor: np.ndarray) -> SparseBlock | None:
    array, n = p.numpy(), len(p)
    counts = np.empty(n, np.int64)
    kernels.parallel_for(kernels.count_above, n, array, floor, counts)
    if counts.sum() > SPARSE_BELOW * array.size:
        return None
    indptr = np.concatenate([[0], counts.cumsum()])
    rows, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], array.dtype)
    kernels.parallel_for(kernels.take_above, n, array, floor, indptr, rows, values)
    return SparseBlock(first, first + n, indptr, rows, torch.from_numpy(values))


class _Screen:
    """Finds candidates with a bfloat16 product and decides them in full precision."""

    def __init__(self, centerd: Float[Tensor, "batch d_in"]) -> None:
        self.centerd = centerd
        self.half = centerd.bfloat16().T
        self.error = BFLOAT16_ERROR * float(centerd.norm(dim=1).max())

    def above(self, first: int, weights: Float[Tensor, "n d_in"], floor: np.ndarray) -> SparseBlock | None:
        """The entries above the floor; None where the candidates are too many to be worth it."""
        n, batch = len(weights), len(self.centerd)
        half, norms = np.empty(weights.shape, np.uint16), np.empty(n, np.float32)
        kernels.parallel_for(kernels.halve, n, weights.numpy(), half, norms)
        p = (_as_bfloat16(half) @ self.half).view(torch.int16).numpy()
        limit = torch.from_numpy(floor - self.error * norms).bfloat16().view(torch.int16).numpy()
        counts = np.empty(n, np.int64)
        kernels.parallel_for(kernels.count_above_half, n, p, limit, counts)
        if counts.sum() > SPARSE_BELOW * n * batch:
            return None
        indptr = np.concatenate([[0], counts.cumsum()])
        rows, values = np.empty(indptr[-1], np.int32), np.empty((1, indptr[-1]), np.float32)
        kernels.parallel_for(kernels.take_above_half, n, p, limit, indptr, rows)
        kernels.parallel_for(kernels.dot_entries, n, indptr, rows, self.centerd[None].numpy(), weights.numpy(), values)
        kept = np.empty_like(indptr)
        kernels.keep_above(indptr, rows, values[0], floor, kept)
        return SparseBlock(first, first + n, kept, rows[: kept[-1]], torch.from_numpy(values[0, : kept[-1]]))


def _as_bfloat16(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def joined(blocks: Iterable[Block], prefixes: list[int]) -> list[Block]:
    """The same blocks, with neighboring sparse ones of one prefix made one: fewer, larger calls follow."""
    found: list[Block] = []
    for is_sparse, run in groupby(
        blocks, lambda block: isinstance(block, SparseBlock) and bisect_right(prefixes, block.first)
    ):
        members = list(run)
        if is_sparse is False:
            found += members
            continue
        parts = [part for part in members if isinstance(part, SparseBlock)]
        shifts = np.cumsum([0, *(len(part.rows) for part in parts)])
        indptr = np.concatenate(
            [part.indptr[:-1] + shift for part, shift in zip(parts, shifts, strict=False)] + [shifts[-1:]]
        )
        p = torch.cat([part.p for part in parts])
        found.append(
            SparseBlock(parts[0].first, parts[-1].last, indptr, np.concatenate([part.rows for part in parts]), p)
        )
    return found


class Competition:
    """Groups of batch rows, each with room for its `room` largest positive activations."""

    def __init__(self, batch: int, n_groups: int, room: int, dtype: np.dtype) -> None:
        self.room = room
        self.group_of = np.arange(batch) * n_groups // batch
        self.limit = np.zeros(n_groups, dtype)
        self.n_held = np.zeros(n_groups, np.int64)
        self.held = (
            np.empty((n_groups, 2 * room), dtype),
            np.empty((n_groups, 2 * room), np.int32),
            np.empty((n_groups, 2 * room), np.int32),
        )

    def offer(self, p: np.ndarray, bias: np.ndarray, features: np.ndarray) -> None:
        """Let the entries p[feature, row] + bias[feature] compete."""
        kernels.parallel_for(
            kernels.offer,
            len(self.limit),
            p,
            bias,
            features,
            self.group_of,
            self.limit,
            self.n_held,
            *self.held,
            self.room,
        )

    def winners(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Activation, row and feature of what holds a place."""
        for group in range(len(self.limit)):
            if self.n_held[group] > self.room:
                value, row, feature = (array[group] for array in self.held)
                kernels.keep_largest(value, row, feature, self.n_held[group], self.room)
        stays = np.arange(2 * self.room) < np.minimum(self.n_held, self.room)[:, None]
        value, row, feature = (array[stays] for array in self.held)
        return value, row, feature


def largest(sae: TopKSAE, centerd: Float[Tensor, "batch d_in"], dead: Bool[Tensor, " d_sae"] | None) -> list[Block]:
    """The entries of the top-k family that fire, and with `dead` the largest dead ones of each row, as auxiliary
    entries.
    """
    batch, dtype = len(centerd), centerd.numpy().dtype
    shared = sae.rows_in_competition is None
    n_groups = min(COMPETING_SPANS, batch) if shared else batch
    main = Competition(batch, n_groups, sae.k * batch if shared else sae.k, dtype)
    auxiliary = Competition(batch, batch, sae.k_aux, dtype) if dead is not None else None
    bias, W_enc = sae.b_enc.detach().numpy(), sae.W_enc.detach()
    for first, last in spans(sae, batch):
        p = W_enc[first:last] @ centerd.T
        features = np.arange(first, last, dtype=np.int32)
        main.offer(p.numpy(), bias[first:last], features)
        if auxiliary is not None and dead is not None and dead[first:last].any():
            chosen = dead[first:last].nonzero().squeeze(1)
            auxiliary.offer(p[chosen].numpy(), bias[features[chosen.numpy()]], features[chosen.numpy()])
    value, row, feature = main.winners()
    if shared and len(value) > sae.k * batch:
        kernels.keep_largest(value, row, feature, len(value), sae.k * batch)
        value, row, feature = value[: sae.k * batch], row[: sae.k * batch], feature[: sae.k * batch]
    second = np.zeros(len(value), bool)
    if auxiliary is not None:
        parts = auxiliary.winners()
        value, row, feature = (np.concatenate(pair) for pair in zip((value, row, feature), parts, strict=True))
        second = np.arange(len(value)) >= len(second)
    order = np.argsort((feature.astype(np.int64) * 2 + second) * batch + row, kind="stable")
    value, row, feature, second = value[order], row[order], feature[order], second[order]
    blocks = list(_by_prefix(sae, value - bias[feature], row, feature, second))
    if auxiliary is None:
        for block in blocks:
            block.auxiliary = None
    return blocks


def _by_prefix(
    sae: SparseAutoencoder, p: np.ndarray, row: np.ndarray, feature: np.ndarray, second: np.ndarray
) -> Iterator[Block]:
    indptr = np.searchsorted(feature, np.arange(sae.d_sae + 1))
    start = 0
    for stop in sae.prefixes:
        inside = slice(indptr[start], indptr[stop])
        block = SparseBlock(
            start, stop, indptr[start : stop + 1] - indptr[start], row[inside], torch.from_numpy(p[inside])
        )
        block.auxiliary = torch.from_numpy(second[inside])
        yield block
        start = stop
