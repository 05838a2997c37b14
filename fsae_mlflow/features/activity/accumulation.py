"""Compiled loops that add entries to a survey. Each feature is processed by one thread, in row order."""

import math
from typing import no_type_check

import numpy as np
from numba import njit

BINS_PER_OCTAVE, N_BINS, SMALLEST_EXPONENT = 8, 128, -10
"""The histogram of activations: 16 octaves from 2⁻¹⁰ on, eight bins each; smaller ones fall in the first bin."""
STEP = 2.0**-24
"""Sums are of multiples of this: exact in float64 up to 2²⁹, hence equal in every order."""


@no_type_check
@njit(nogil=True, cache=True)
def add_entries(
    first, last, indptr, rows, values, first_row, person, sums, squares, histogram, most, per_person,
    n_top, limit, top_value, top_row, top_person, n_sampled, sampled_key, sampled_value, sampled_row,
):  # fmt: skip
    """Add the entries of features first…last; batch row b is row first_row + b of the set."""
    for j in range(first, last):
        for e in range(indptr[j], indptr[j + 1]):
            value, row = values[e], np.int32(first_row + rows[e])
            sums[j] += np.rint(value / STEP) * STEP
            squares[j] += np.rint(np.float64(value) * value / STEP) * STEP
            histogram[j, bin_of(value)] += np.uint32(1)
            offer_sample(j, value, row, n_sampled, sampled_key, sampled_value, sampled_row)
            offer_top(j, value, row, person[rows[e]], most, per_person, n_top, limit, top_value, top_row, top_person)


@no_type_check
@njit(nogil=True, cache=True)
def add_kept(
    first, last, kept_n_top, kept_value, kept_row, kept_person, kept_n_sampled, kept_sampled_value, kept_sampled_row,
    most, per_person, n_top, limit, top_value, top_row, top_person, n_sampled, sampled_key, sampled_value, sampled_row,
):  # fmt: skip
    """Add the top and the sampled faces that a survey of later rows kept."""
    for j in range(first, last):
        for e in range(kept_n_top[j]):
            offer_top(
                j, kept_value[j, e], kept_row[j, e], kept_person[j, e], most, per_person,
                n_top, limit, top_value, top_row, top_person,
            )  # fmt: skip
        for e in range(kept_n_sampled[j]):
            offer_sample(
                j, kept_sampled_value[j, e], kept_sampled_row[j, e], n_sampled, sampled_key, sampled_value, sampled_row
            )


@no_type_check
@njit(nogil=True, cache=True)
def settle(first, last, most, per_person, n_top, limit, top_value, top_row, top_person):
    """Sort each feature's top faces cut them to `most`, and clear what follows."""
    for j in range(first, last):
        compact(j, most, per_person, n_top, limit, top_value, top_row, top_person)
        n = n_top[j]
        top_value[j, n:], top_row[j, n:], top_person[j, n:] = 0, 0, 0


@no_type_check
@njit(nogil=True, cache=True)
def bin_of(value):
    """The bin of an activation."""
    mantissa, exponent = math.frexp(value)  # value = mantissa · 2^exponent, mantissa in ½…1
    octave = exponent - 1 - SMALLEST_EXPONENT
    place = octave * BINS_PER_OCTAVE + int((mantissa * 2 - 1) * BINS_PER_OCTAVE)
    return min(max(place, 0), N_BINS - 1)


@no_type_check
@njit(nogil=True, cache=True)
def offer_top(j, value, row, person, most, per_person, n_top, limit, top_value, top_row, top_person):
    """Keep a face among feature j's top faces if it may be one; a full list is cut to the `most` best."""
    if value <= limit[j]:
        return
    n = n_top[j]
    top_value[j, n], top_row[j, n], top_person[j, n] = value, row, person
    n_top[j] = n + 1
    if n + 1 == top_value.shape[1]:
        compact(j, most, per_person, n_top, limit, top_value, top_row, top_person)


@no_type_check
@njit(nogil=True, cache=True)
def compact(j, most, per_person, n_top, limit, top_value, top_row, top_person):
    """Cut feature j's list to its `most` best faces, at most `per_person` of one person; earlier rows where equal."""
    n = n_top[j]
    value, row, person = top_value[j, :n].copy(), top_row[j, :n].copy(), top_person[j, :n].copy()
    by_row = np.argsort(row, kind="mergesort")
    order = by_row[np.argsort(-value[by_row], kind="mergesort")]
    kept = 0
    for e in order:
        same = 0
        for k in range(kept):
            same += top_person[j, k] == person[e]
        if same < per_person:
            top_value[j, kept], top_row[j, kept], top_person[j, kept] = value[e], row[e], person[e]
            kept += 1
            if kept == most:
                limit[j] = value[e]
                break
    n_top[j] = kept


@no_type_check
@njit(nogil=True, cache=True)
def offer_sample(j, value, row, n_sampled, sampled_key, sampled_value, sampled_row):
    """Keep the faces of the smallest keys: a uniform sample of all that fire feature j, whatever their order."""
    key, n, size = key_of(j, row), n_sampled[j], sampled_key.shape[1]
    if n < size:
        place = n
        n_sampled[j] = n + 1
    else:
        place = 0
        for k in range(1, size):
            if sampled_key[j, k] > sampled_key[j, place]:
                place = k
        if key >= sampled_key[j, place]:
            return
    sampled_key[j, place], sampled_value[j, place], sampled_row[j, place] = key, value, row


@no_type_check
@njit(nogil=True, cache=True)
def key_of(j, row):
    """A random-looking number of a feature and a row (splitmix64)."""
    z = (np.uint64(j) << np.uint64(32)) + np.uint64(row) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
