"""The account of one pair: its features, its strongest pairs of features, and what happens when features are off."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from fsae_mlflow.errors import UserError
from fsae_mlflow.explanation.contributions import Contributions, cosines
from fsae_mlflow.explanation.results import Explanation, FeaturePair, FeaturePart, SwitchedOff, Threshold
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.verification.protocol import allowed_impostors

N_PAIRS = 10
USUAL_FAR = 1e-3


def threshold(
    cosine: Float64[np.ndarray, " pairs"], genuine: Bool[np.ndarray, " pairs"], *, far: float | None
) -> Threshold:
    """The lowest threshold that accepts at most the share `far` of the impostor pairs; where it is None, 0.001, or one
    pair of fewer than 1,000.

    Raises: UserError for no impostor pairs, and for less than 1/far, which cannot show such a rate.
    """
    impostors = np.sort(cosine[~genuine])[::-1]
    if not len(impostors):
        raise UserError(
            "pairs: the threshold needs impostor pairs (two people), and there are none; give pairs or faces of more "
            "people."
        )
    far = far or max(USUAL_FAR, 1 / len(impostors))
    n_allowed = allowed_impostors(far, len(impostors))
    if n_allowed < 1:
        raise UserError(
            f"far={far:g} needs at least {int(np.ceil(1 / far)):,} impostor pairs, and there are {len(impostors):,}; "
            f"give a far of at least {np.ceil(1e4 / len(impostors)) / 1e4:g}, or more pairs."
        )
    limit = float(impostors[min(n_allowed, len(impostors) - 1)])
    return Threshold(
        cosine=limit,
        far=float((impostors > limit).mean()),
        tar=float((cosine[genuine] > limit).mean()),
        n_impostors=len(impostors),
        n_genuine=int(genuine.sum()),
    )


def account(
    found: Contributions,
    pair: int,
    *,
    sae: SparseAutoencoder,
    name: str,
    images: tuple[str, str],
    genuine: bool | None,
    thresholds: tuple[Threshold, Threshold],
    readings: Sequence[str],
    n_off: int,
    without: Bool[np.ndarray, " d_sae"] | None = None,
) -> Explanation:
    """The explanation of one pair of `found`.

    `thresholds`: for original and for decoded templates. `readings`: the sentence of each feature. One after the other
    are switched off the `n_off` features that add most, or at once those of `without`.
    """
    place = found.of_pair(pair)
    order = np.argsort(-found.value[place], kind="stable")
    parts = [
        FeaturePart(
            feature=int(found.feature[entry]),
            reading=str(readings[int(found.feature[entry])]),
            contribution=float(found.value[entry]),
            first=float(found.first[entry]),
            second=float(found.second[entry]),
            without=float(found.without[entry]),
        )
        for entry in (place.start + order).tolist()
    ]
    adding = order[: int((found.value[place] > 0).sum())]
    if without is None:
        off, steps, limit = adding, np.arange(1, min(n_off, len(adding)) + 1), thresholds[1].cosine
    else:
        off = order[without[found.feature[place][order]]]
        steps, limit = np.array([len(off)] if len(off) else [], np.int64), -np.inf
    counterfactual, n_until = _counterfactual(found, pair, off, steps, sae=sae, limit=limit)
    return Explanation(
        name=name,
        first=images[0],
        second=images[1],
        genuine=genuine,
        similarity=float(found.original[pair]),
        decoded=float(found.decoded[pair]),
        constant=float(found.constant[pair]),
        unexplained=float(found.unexplained[pair]),
        threshold=thresholds[0],
        decoded_threshold=thresholds[1],
        features=parts,
        pairs=feature_pairs(found, pair),
        counterfactual=counterfactual,
        n_until_rejected=n_until,
    )


def feature_pairs(found: Contributions, pair: int, *, most: int = N_PAIRS) -> list[FeaturePair]:
    """The pairs of two different features, one of each face, that contribute most, up or down."""
    matrix, (first, second) = pair_matrix(found, pair)
    matrix = np.where(first[:, None] == second[None], 0.0, matrix)
    strongest = np.argsort(-np.abs(matrix), axis=None, kind="stable")[:most]
    at = zip(*np.unravel_index(strongest, matrix.shape), strict=True)
    return [
        FeaturePair(first=int(first[i]), second=int(second[j]), contribution=float(matrix[i, j]))
        for i, j in at
        if matrix[i, j]
    ]


def pair_matrix(
    found: Contributions, pair: int
) -> tuple[Float64[np.ndarray, "n m"], tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]]:
    """f_aj f_bk d_j·d_k / (‖x̂_a‖ ‖x̂_b‖) of the features j of the first and k of the second face, and these features."""
    place = found.of_pair(pair)
    of_side = []
    for activations in (found.first[place], found.second[place]):
        features = found.feature[place][activations > 0].astype(np.int64)
        parts = activations[activations > 0, None] * found.decoder.directions[features].astype(np.float64)
        of_side.append((features, parts))
    (first, a), (second, b) = of_side
    return a @ b.T / found.lengths[pair].prod(), (first, second)


@torch.no_grad()
def _counterfactual(
    found: Contributions,
    pair: int,
    off: Int64[np.ndarray, " n"],
    steps: Int64[np.ndarray, " steps"],
    *,
    sae: SparseAutoencoder,
    limit: float,
) -> tuple[list[SwitchedOff], int | None]:
    """What remains without the first of the entries `off`, as many as each of `steps` says, and after how many of them
    the cosine is at most `limit`.
    """
    left = found.switched_off(pair, off, np.arange(len(off) + 1))
    stated = cosines(*left)
    rejected = np.flatnonzero(stated <= limit)
    features = found.feature[found.of_pair(pair)][off].astype(np.int64)
    told = []
    for n in steps.tolist():
        encoded = sae.encode(torch.from_numpy(left[:, n]).to(sae.W_dec))
        again = sae.decode(encoded).cpu().numpy()
        fires = (encoded.cpu()[:, torch.from_numpy(features[:n])] > 0).any(dim=0)
        told.append(
            SwitchedOff(
                features=features[:n].tolist(),
                cosine=float(stated[n]),
                read_again=float(cosines(again[:1], again[1:])[0]),
                n_firing_again=int(fires.sum()),
            )
        )
    return told, int(rejected[0]) if len(rejected) and rejected[0] > 0 else None
