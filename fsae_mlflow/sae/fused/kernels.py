"""Compiled loops over active entries: the parts of a training step where a dense product would mostly multiply zeros.

Entries are stored by feature: those of feature j are rows[indptr[j] : indptr[j + 1]], batch rows in ascending order,
with one column of `values` each. Every output element is summed by one thread in one fixed order, so that results do
not depend on the number of threads. The compiler may reorder dot products only, always in the same way; NaN and
infinity are kept.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import no_type_check

import numpy as np
import torch
from numba import njit

FUSED = {"contract"}
DOT = {"contract", "reassoc"}
CHUNKS_PER_THREAD = 4
OFFERED_AT_ONCE = 32  # entries that `offer` compares before it looks at one of them: most are below the limit


def parallel_for(kernel: Callable[..., None], n: int, *arguments: object, multiple: int = 1) -> None:
    """Call `kernel(first, last, *arguments)` on ranges that cover 0…n, on as many threads as torch uses."""
    n_threads = torch.get_num_threads()
    n_chunks = 1 if n_threads == 1 else n_threads if multiple > 1 else n_threads * CHUNKS_PER_THREAD
    size = -(-n // (n_chunks * multiple)) * multiple
    ranges = [(first, min(first + size, n)) for first in range(0, n, size)]
    if len(ranges) == 1 or n_threads == 1:
        for first, last in ranges:
            kernel(first, last, *arguments)
        return
    for finished in [_threads(n_threads).submit(kernel, first, last, *arguments) for first, last in ranges]:
        finished.result()


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="sae")


@no_type_check
@njit(nogil=True, cache=True)
def count_above(first, last, p, floor, counts):
    """Count per feature (row of `p`) the entries above the feature's floor."""
    for j in range(first, last):
        row, limit, n = p[j], floor[j], np.int32(0)
        for b in range(row.shape[0]):
            n += np.int32(row[b] > limit)
        counts[j] = n


@no_type_check
@njit(nogil=True, cache=True)
def take_above(first, last, p, floor, indptr, rows, values):
    """Write the entries that `count_above` counted."""
    for j in range(first, last):
        row, limit, n, end = p[j], floor[j], indptr[j], indptr[j + 1]
        for b in range(row.shape[0]):
            if n == end:
                break
            if row[b] > limit:
                rows[n] = b
                values[n] = row[b]
                n += 1


@no_type_check
@njit(nogil=True, cache=True, fastmath=DOT)
def halve(first, last, weights, half, norms):
    """Round rows to bfloat16 (bits in `half`) and compute their norms, in one pass."""
    bits = weights.view(np.uint32)
    for j in range(first, last):
        row, total = weights[j], np.float32(0)
        for i in range(row.shape[0]):
            total += row[i] * row[i]
            half[j, i] = np.uint16(
                (bits[j, i] + np.uint32(0x7FFF) + ((bits[j, i] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            )
        norms[j] = np.sqrt(total)


@no_type_check
@njit(nogil=True, cache=True)
def ordered(half):
    """The bits of a bfloat16 as an int16 that sorts as the number does."""
    return np.int16(half ^ ((half >> np.int16(15)) & np.int16(0x7FFF)))


@no_type_check
@njit(nogil=True, cache=True)
def count_above_half(first, last, p, floor, counts):
    """`count_above` on the bits of bfloat16 numbers; entries equal to the floor count too."""
    for j in range(first, last):
        row, limit, n = p[j], ordered(floor[j]), np.int32(0)
        for b in range(row.shape[0]):
            n += np.int32(ordered(row[b]) >= limit)
        counts[j] = n


@no_type_check
@njit(nogil=True, cache=True)
def take_above_half(first, last, p, floor, indptr, rows):
    """Write the rows of the entries that `count_above_half` counted."""
    for j in range(first, last):
        row, limit, n, end = p[j], ordered(floor[j]), indptr[j], indptr[j + 1]
        for b in range(row.shape[0]):
            if n == end:
                break
            if ordered(row[b]) >= limit:
                rows[n] = b
                n += 1


@no_type_check
@njit(nogil=True, cache=True)
def keep_above(indptr, rows, values, floor, kept):
    """Drop in place the entries that are not above their feature's floor; `kept` gets the new indptr."""
    n = 0
    kept[0] = 0
    for j in range(indptr.shape[0] - 1):
        limit = floor[j]
        for e in range(indptr[j], indptr[j + 1]):
            if values[e] > limit:
                rows[n] = rows[e]
                values[n] = values[e]
                n += 1
        kept[j + 1] = n


@no_type_check
@njit(nogil=True, cache=True, fastmath=FUSED)
def add_decoded(first, last, indptr, rows, values, weights, out):
    """out[c, b, first:last] += Σ_j values[c, (b, j)] · weights[j, first:last]."""
    for j in range(weights.shape[0]):
        w = weights[j, first:last]
        for e in range(indptr[j], indptr[j + 1]):
            for c in range(values.shape[0]):
                value = values[c, e]
                if value != 0:
                    o = out[c, rows[e], first:last]
                    for i in range(w.shape[0]):
                        o[i] += value * w[i]


@no_type_check
@njit(nogil=True, cache=True, fastmath=DOT)
def dot_entries(first, last, indptr, rows, inputs, weights, out):
    """out[c, (b, j)] = inputs[c, b] · weights[j]."""
    for j in range(first, last):
        w = weights[j]
        for e in range(indptr[j], indptr[j + 1]):
            for c in range(out.shape[0]):
                x = inputs[c, rows[e]]
                total = w.dtype.type(0)
                for i in range(w.shape[0]):
                    total += x[i] * w[i]
                out[c, e] = total


@no_type_check
@njit(nogil=True, cache=True, fastmath=DOT, error_model="numpy")
def update_rows(first, last, weights, m, v, indptr, rows, values, inputs, gradient, radial, numbers, unit):
    """AdamW on rows of a weight matrix in one pass over its memory; a row's gradient exists only within the pass.

    The gradient is gradient[j] where that is given, else Σ values[c, (b, j)] · inputs[c, b]; plus radial[j] ·
    weights[j]. `unit` removes its part along the row and brings the row back to unit norm. `numbers`: 1 − lr·decay,
    β1, 1 − β1, β2, 1 − β2, lr / (1 − β1^t), sqrt(1 − β2^t), ε.
    """
    shrink, beta1, rest1, beta2, rest2, rate, correction, eps = numbers
    g = np.empty(weights.shape[1], weights.dtype)
    for j in range(first, last):
        w, mean, square = weights[j], m[j], v[j]
        if gradient.shape[0] > 0:
            g[:] = gradient[j]
        else:
            g[:] = 0
            for e in range(indptr[j], indptr[j + 1]):
                for c in range(values.shape[0]):
                    value = values[c, e]
                    if value != 0:
                        x = inputs[c, rows[e]]
                        for i in range(g.shape[0]):
                            g[i] += value * x[i]
        along = radial[j]
        if unit:
            for i in range(g.shape[0]):
                along -= g[i] * w[i]
        if along != 0:
            for i in range(g.shape[0]):
                g[i] += along * w[i]
        norm = w.dtype.type(0)
        for i in range(g.shape[0]):
            mean[i] = beta1 * mean[i] + rest1 * g[i]
            square[i] = beta2 * square[i] + rest2 * g[i] * g[i]
            w[i] = shrink * w[i] - rate * mean[i] / (np.sqrt(square[i]) / correction + eps)
            norm += w[i] * w[i]
        if unit:
            norm = np.sqrt(norm)
            for i in range(g.shape[0]):
                w[i] /= norm


@no_type_check
@njit(nogil=True, cache=True)
def offer(first, last, p, bias, features, group_of, limit, n_held, held_value, held_row, held_feature, room):
    """Let the entries of a block compete for the places of their group, by the value p + bias.

    Batch row b belongs to group group_of[b] (ascending); groups `first` to `last` are processed. A group holds up to
    twice its `room`; when it is full, its lower half is dropped and its limit becomes the least that stayed.
    """
    start = np.searchsorted(group_of, first)
    stop = np.searchsorted(group_of, last)
    limit_of = np.empty(stop - start, p.dtype)
    for b in range(start, stop):
        limit_of[b - start] = limit[group_of[b]]
    for j in range(p.shape[0]):
        row, shift = p[j, start:stop], bias[j]
        for chunk in range(0, limit_of.shape[0], OFFERED_AT_ONCE):
            end, n_above = min(chunk + OFFERED_AT_ONCE, limit_of.shape[0]), np.int32(0)
            for i in range(chunk, end):
                n_above += np.int32(row[i] + shift > limit_of[i])
            if n_above == 0:
                continue
            for i in range(chunk, end):
                if row[i] + shift > limit_of[i]:
                    g = group_of[start + i]
                    n = n_held[g]
                    held_value[g, n], held_row[g, n], held_feature[g, n] = row[i] + shift, start + i, features[j]
                    n_held[g] = n + 1
                    if n + 1 == held_value.shape[1]:
                        limit[g] = keep_largest(held_value[g], held_row[g], held_feature[g], n + 1, room)
                        n_held[g] = room
                        for k in range(limit_of.shape[0]):
                            if group_of[start + k] == g:
                                limit_of[k] = limit[g]


@no_type_check
@njit(nogil=True, cache=True)
def keep_largest(value, row, feature, n, room):
    """Keep the `room` largest of n entries in their order, earlier ones where equal; return the least kept."""
    least = np.sort(value[:n])[n - room]
    n_equal = room
    for e in range(n):
        if value[e] > least:
            n_equal -= 1
    kept = 0
    for e in range(n):
        if value[e] > least or (value[e] == least and n_equal > 0):
            if value[e] == least:
                n_equal -= 1
            value[kept], row[kept], feature[kept] = value[e], row[e], feature[e]
            kept += 1
    return least


@no_type_check
@njit(nogil=True, cache=True)
def sort_by_counting(number, place, order):
    """The stable order of entries by number; `place[i]`, where those of number i begin, moves to their end."""
    for e in range(number.shape[0]):
        i = number[e]
        order[place[i]] = e
        place[i] += 1


@no_type_check
@njit(nogil=True, cache=True)
def mark_largest(first, last, start, value, n_most, kept, least):
    """Mark the n_most largest positive values of each row, start[row]…start[row + 1]; earlier ones where equal.

    `least[row]` gets the least of them, 0 where there are fewer.
    """
    for b in range(first, last):
        one, mark = value[start[b] : start[b + 1]], kept[start[b] : start[b + 1]]
        n = one.shape[0]
        limit = np.sort(one)[n - n_most] if n >= n_most else one.dtype.type(0)
        least[b] = max(limit, one.dtype.type(0))
        n_equal = n_most
        for e in range(n):
            n_equal -= one[e] > limit
        for e in range(n):
            mark[e] = one[e] > 0 and (one[e] > limit or (one[e] == limit and n_equal > 0))
            if mark[e] and one[e] == limit:
                n_equal -= 1
