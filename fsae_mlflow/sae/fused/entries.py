"""The entries of a batch that a training step needs: those above their feature's floor, or the largest."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from llvmlite.binding import get_host_cpu_features
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.fused import kernels
from fsae_mlflow.sae.fused.blocks import SPARSE_BELOW, Block, DenseBlock, SparseBlock
from fsae_mlflow.sae.terms import Competition

# Entries of one dense product: small enough to stay in a last-level cache until they are sifted.
BLOCK_ENTRIES = 1 << 22
# Rounding both factors, the product and the floor to bfloat16 moves a comparison by less than this times ‖x‖‖w‖: 4 ·
# 2⁻⁹ and a margin.
BFLOAT16_ERROR = 0.008
N_GROUPS = 8  # groups of rows in a competition that the whole batch shares


def spans(sae: SparseAutoencoder, batch: int) -> Iterator[tuple[int, int]]:
    """Ranges of features for one product each; none crosses the end of a prefix of the loss."""
    size = max(64, BLOCK_ENTRIES // batch)
    start = 0
    for stop in sae.prefixes:
        for first in range(start, stop, size):
            yield first, min(first + size, stop)
        start = stop


def above_floor(sae: SparseAutoencoder, centered: Float[Tensor, "batch d_in"], *, screened: bool) -> Iterator[Block]:
    """The entries above `sae.floor()`, block by block, each block sparse or dense by its own density.

    With `screened`, a bfloat16 product rules entries out first, and only the rest is computed in full precision. The
    entries and their values are the same; it takes about half the time where the processor multiplies bfloat16.
    """
    floor, W_enc = sae.floor().detach().numpy(), sae.W_enc.detach()
    screen = _Screen(centered) if screened else None
    for first, last in spans(sae, len(centered)):
        weights, limit = W_enc[first:last], floor[first:last]
        if screen is not None:
            found = screen.above(first, weights, limit)
            if found is not None:
                yield found
                continue
            # Where one block is dense, its neighbors mostly are: screening them would not pay.
            screen = None
        p = weights @ centered.T
        yield _above(first, p, limit) or DenseBlock(first, last, p)


def screening_pays(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    features = get_host_cpu_features()
    return dtype == torch.float32 and any(features.get(name, False) for name in ("avx512bf16", "amx-bf16"))


def _above(first: int, p: Float[Tensor, "n batch"], floor: np.ndarray) -> SparseBlock | None:
    counts = count_above(p.numpy(), floor)
    if counts.sum() > SPARSE_BELOW * p.numel():
        return None
    indptr, rows, values = take_above(p.numpy(), floor, counts)
    return SparseBlock(first, first + len(p), indptr, rows, torch.from_numpy(values))


def count_above(p: Shaped[np.ndarray, "n batch"], floor: Shaped[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The number of entries of each feature (a row of `p`) above the feature's floor."""
    counts = np.empty(len(p), np.int64)
    kernels.parallel_for(kernels.count_above, len(p), p, floor, counts)
    return counts


def take_above(
    p: Shaped[np.ndarray, "n batch"], floor: Shaped[np.ndarray, " n"], counts: Int64[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries that `count_above` counted: indptr, rows and values."""
    indptr = np.concatenate([[0], counts.cumsum()])
    rows, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], p.dtype)
    kernels.parallel_for(kernels.take_above, len(p), p, floor, indptr, rows, values)
    return indptr, rows, values


class _Screen:
    """Finds candidates by a bfloat16 product and decides about them in full precision."""

    def __init__(self, centered: Float[Tensor, "batch d_in"]) -> None:
        self.centered = centered
        self.half = centered.bfloat16().T
        self.error = BFLOAT16_ERROR * float(centered.norm(dim=1).max())

    def above(self, first: int, weights: Float[Tensor, "n d_in"], floor: np.ndarray) -> SparseBlock | None:
        """The entries above the floor; None where there are too many candidates for screening to pay."""
        n, batch = len(weights), len(self.centered)
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
        kernels.parallel_for(kernels.dot_entries, n, indptr, rows, self.centered[None].numpy(), weights.numpy(), values)
        kept = np.empty_like(indptr)
        kernels.keep_above(indptr, rows, values[0], floor, kept)
        return SparseBlock(first, first + n, kept, rows[: kept[-1]], torch.from_numpy(values[0, : kept[-1]]))


def _as_bfloat16(bits: np.ndarray) -> Tensor:
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def joined(blocks: Iterable[Block], prefixes: list[int]) -> list[Block]:
    """The same blocks, with neighboring sparse ones of one prefix joined, for fewer and larger calls."""
    found: list[Block] = []
    for (is_sparse, _), run in groupby(
        blocks, lambda block: (isinstance(block, SparseBlock), bisect_right(prefixes, block.first))
    ):
        members = list(run)
        if not is_sparse:
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


class Places:
    """Groups of batch rows, each with `room` places for its largest positive activations."""

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
        """Activation, row and feature of the entries that hold a place."""
        for group in range(len(self.limit)):
            if self.n_held[group] > self.room:
                value, row, feature = (array[group] for array in self.held)
                kernels.keep_largest(value, row, feature, self.n_held[group], self.room)
        stays = np.arange(2 * self.room) < np.minimum(self.n_held, self.room)[:, None]
        value, row, feature = (array[stays] for array in self.held)
        return value, row, feature


def largest(
    sae: SparseAutoencoder,
    competition: Competition,
    centered: Float[Tensor, "batch d_in"],
    dead: Int[Tensor, " n_dead"] | None,
) -> list[Block]:
    """The entries that fire where features compete, and as auxiliary entries the largest dead ones of each row."""
    batch, dtype = len(centered), centered.numpy().dtype
    n_groups, room = (min(N_GROUPS, batch), competition.k * batch) if competition.shared else (batch, competition.k)
    main = Places(batch, n_groups, room, dtype)
    candidates = np.empty(0, np.int64) if dead is None else dead.numpy()
    auxiliary = Places(batch, batch, competition.k_aux, dtype) if competition.k_aux and len(candidates) else None
    bias, W_enc = -sae.floor().detach().numpy(), sae.W_enc.detach()
    for first, last in spans(sae, batch):
        p = W_enc[first:last] @ centered.T
        features = np.arange(first, last, dtype=np.int32)
        main.offer(p.numpy(), bias[first:last], features)
        if auxiliary is not None:
            chosen = candidates[slice(*np.searchsorted(candidates, (first, last)))]
            auxiliary.offer(p.numpy()[chosen - first], bias[chosen], features[chosen - first])
    value, row, feature = main.winners()
    if competition.shared and len(value) > room:
        kernels.keep_largest(value, row, feature, len(value), room)
        value, row, feature = value[:room], row[:room], feature[:room]
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
