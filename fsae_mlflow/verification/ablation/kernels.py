"""Compiled loops of the ablation: distances of pairs without a feature, and error rates where some distances change.

The k-th fold-out is all pairs but those of fold k − 1; fold-out 0 is all pairs.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from fsae_mlflow.sae.fused.kernels import DOT

ZERO = 1e-12
"""Squared norm, relative to that with the feature, of a template that is zero without it."""


@no_type_check
@njit(nogil=True, cache=True)
def leave_out_each(
    first, last, indptr, rows, values, W_dec, decoded, dots, squares, a, b, starts, of_image, sides, n_pairs, found
):
    """For each feature j of first…last: in how many pairs it fires, and the rates of all fold-outs without it.

    Pairs of images `a` and `b` have the products `dots`; image i stands in the pairs of_image[starts[i] : starts[i +
    1]]. With f the activation, divided by the SAE's scale, and d the decoder row,

        a' · b' = a · b − f_a d · b − f_b d · a + f_a f_b ‖d‖²    and    ‖a'‖² = ‖a‖² − 2 f_a d · a + f_a² ‖d‖².
    """
    n_images, n_all = decoded.shape[0], a.shape[0]
    activation, product = np.zeros(n_images), np.full(n_images, np.nan)
    changed = np.zeros(n_all, np.bool_)
    pairs, distances = np.empty(n_all, np.int64), np.empty(n_all)
    for j in range(first, last):
        n, d, square = 0, W_dec[j], _dot(W_dec[j], W_dec[j])
        for place in range(indptr[j], indptr[j + 1]):
            image = rows[place]
            activation[image] = values[place]
            for k in range(starts[image], starts[image + 1]):
                pair = of_image[k]
                if not changed[pair]:
                    changed[pair] = True
                    pairs[n] = pair
                    n += 1
        for k in range(n):
            one, other = a[pairs[k]], b[pairs[k]]
            for image in (one, other):
                if np.isnan(product[image]):
                    product[image] = _dot(d, decoded[image])
            f, g = activation[one], activation[other]
            dot = dots[pairs[k]] - f * product[other] - g * product[one] + f * g * square
            of_one = squares[one] - 2 * f * product[one] + f * f * square
            of_other = squares[other] - 2 * g * product[other] + g * g * square
            zero, other_zero = of_one <= ZERO * squares[one], of_other <= ZERO * squares[other]
            if zero or other_zero:
                distances[k] = 0.0 if zero and other_zero else 1.0
            else:
                distances[k] = 2 - 2 * dot / np.sqrt(of_one * of_other)
        n_pairs[j] = n
        rates(pairs[:n], distances[:n], changed, sides, found[j])
        for k in range(n):
            changed[pairs[k]] = False
            product[a[pairs[k]]] = product[b[pairs[k]]] = np.nan
        for place in range(indptr[j], indptr[j + 1]):
            activation[rows[place]] = 0.0


@no_type_check
@njit(nogil=True, cache=True)
def rates(pairs, distances, changed, sides, found):
    """TAR at two FARs and EER (rows of `found`) of each fold-out (columns), where `pairs` have new distances.

    `changed` marks these pairs. One walk over all pairs in the order of their distances, as protocol.py defines the
    rates; `found` holds nan where a fold-out has too few pairs.
    """
    order, base, genuine, fold, n_genuine, n_impostor, allowed = sides
    n_outs = len(n_genuine)
    by_distance = np.argsort(distances)
    accepted, wrongly = np.zeros(n_outs, np.int64), np.zeros(n_outs, np.int64)
    below, wrongly_below = np.zeros(n_outs, np.int64), np.zeros(n_outs, np.int64)
    missing = 0
    for out in range(n_outs):
        for rate in range(3):
            found[rate, out] = np.nan
        enough = n_genuine[out] > 0 and n_impostor[out] > 0
        missing += int(enough) + int(enough and allowed[0, out] > 0) + int(enough and allowed[1, out] > 0)
    i, k, previous = 0, 0, -np.inf
    while missing:
        while i < len(order) and changed[order[i]]:
            i += 1
        old = base[order[i]] if i < len(order) else np.inf
        new = distances[by_distance[k]] if k < len(distances) else np.inf
        distance = min(old, new)
        if distance > previous:
            missing -= _cross(accepted, wrongly, below, wrongly_below, n_genuine, n_impostor, found[2])
            below[:], wrongly_below[:], previous = accepted, wrongly, distance
            if distance == np.inf:
                break
        if old <= new:
            pair, i = order[i], i + 1
        else:
            pair, k = pairs[by_distance[k]], k + 1
        for out in range(n_outs):
            if fold[pair] == out - 1:
                continue
            if genuine[pair]:
                accepted[out] += 1
                continue
            wrongly[out] += 1
            for rate in range(2):
                if wrongly[out] == allowed[rate, out] + 1 and allowed[rate, out] > 0 and n_genuine[out] > 0:
                    found[rate, out] = below[out] / n_genuine[out]
                    missing -= 1


@no_type_check
@njit(nogil=True, cache=True)
def _cross(accepted, wrongly, below, wrongly_below, n_genuine, n_impostor, eer):
    """Set the EER of the fold-outs whose FAR has reached 1 − TAR, and count them."""
    n = 0
    for out in range(len(eer)):
        if not np.isnan(eer[out]) or n_genuine[out] == 0 or n_impostor[out] == 0:
            continue
        far, tar = wrongly[out] / n_impostor[out], accepted[out] / n_genuine[out]
        surplus = far - (1 - tar)
        if surplus >= 0:
            far_before = wrongly_below[out] / n_impostor[out]
            before = far_before - (1 - below[out] / n_genuine[out])
            eer[out] = far_before - before / (surplus - before) * (far - far_before)
            n += 1
    return n


@no_type_check
@njit(nogil=True, cache=True, fastmath=DOT)
def _dot(a, b):
    total = 0.0
    for i in range(a.shape[0]):
        total += np.float64(a[i]) * np.float64(b[i])
    return total
