"""Compiled loops over the features that fire on either face of a pair. Each pair is processed by one thread."""

from typing import no_type_check

from numba import njit

from fsae_mlflow.sae.fused.kernels import DOT


@no_type_check
@njit(nogil=True, cache=True)
def decode(first, last, indptr, feature, value, directions, x_hat):
    """Add Σ f_j d_j to the rows first…last of `x_hat`; the features of each face ascend."""
    for row in range(first, last):
        for e in range(indptr[row], indptr[row + 1]):
            for d in range(x_hat.shape[1]):
                x_hat[row, d] += value[e] * directions[feature[e], d]


@no_type_check
@njit(nogil=True, cache=True)
def count_either(first, last, a, b, indptr, feature, counts):
    """The number of features that fire on face a or b of the pairs first…last."""
    for pair in range(first, last):
        left, left_end = indptr[a[pair]], indptr[a[pair] + 1]
        right, right_end = indptr[b[pair]], indptr[b[pair] + 1]
        n = left_end - left + right_end - right
        while left < left_end and right < right_end:
            j, k = feature[left], feature[right]
            n -= j == k
            left += j <= k
            right += k <= j
        counts[pair] = n


@no_type_check
@njit(nogil=True, cache=True)
def merge(first, last, a, b, indptr, feature, value, starts, features, on_first, on_second):
    """Write the features that fire on either face of the pairs first…last, ascending, and their activations."""
    for pair in range(first, last):
        left, left_end = indptr[a[pair]], indptr[a[pair] + 1]
        right, right_end = indptr[b[pair]], indptr[b[pair] + 1]
        place = starts[pair]
        while left < left_end or right < right_end:
            if right == right_end or (left < left_end and feature[left] < feature[right]):
                j = feature[left]
            else:
                j = feature[right]
            features[place] = j
            if left < left_end and feature[left] == j:
                on_first[place] = value[left]
                left += 1
            if right < right_end and feature[right] == j:
                on_second[place] = value[right]
                right += 1
            place += 1


@no_type_check
@njit(nogil=True, cache=True, fastmath=DOT)
def project(first, last, a, b, starts, features, directions, x_hat, along_first, along_second):
    """Write d_j·x̂ of both faces of the pairs first…last."""
    for pair in range(first, last):
        one, other = x_hat[a[pair]], x_hat[b[pair]]
        for e in range(starts[pair], starts[pair + 1]):
            direction = directions[features[e]]
            left, right = 0.0, 0.0
            for d in range(direction.shape[0]):
                left += direction[d] * one[d]
                right += direction[d] * other[d]
            along_first[e], along_second[e] = left, right
