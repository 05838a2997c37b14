"""Whether a feature fires for one person."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from fsae_mlflow.features.statistics.discrimination import area
from fsae_mlflow.features.statistics.hypergeometric import upper_tail
from fsae_mlflow.features.statistics.order import Groups, numbers_within, rank_scores, totals
from fsae_mlflow.features.statistics.top_shares import top_faces
from fsae_mlflow.sae.entries import Entries

TOP = 20
FEWEST_FACES, FEWEST_PEOPLE = 5, 2


@dataclass(frozen=True, kw_only=True)
class Identity:
    """How much each feature is one person's: `person` (its code, −1 for none), and numbers from 0 to 1.

    purity: the person's share of the up to 20 top faces. entropy: of the activation over the people
    who fire the feature, divided by its largest value: 0 is one person, 1 is spread evenly. auroc and p are of the
    person's other images.
    """

    person: Int64[np.ndarray, " d_sae"]
    purity: Float64[np.ndarray, " d_sae"]
    entropy: Float64[np.ndarray, " d_sae"]
    auroc: Float64[np.ndarray, " d_sae"]
    p: Float64[np.ndarray, " d_sae"]


def identity(entries: Entries, people: Int64[np.ndarray, " n_rows"]) -> Identity:
    """The person whom each feature fires for most, and whether it fires for other images of the person.

    An identity cannot be confirmed on other people; it is confirmed on other pictures of the person. The person is the
    one with the largest sum of activation over the images 0, 2, 4 … of each person, in row order. On the images
    1, 3, 5 … of all people, auroc tells the person from the others, and p is the hypergeometric probability that at
    least as many of the person's images fire by chance. Features that fire on fewer than 5 faces or 2 people are not
    judged: −1 and nan. auroc and p are nan where the person has one image.
    """
    groups = Groups.of(entries, people)
    judged = (entries.counts >= FEWEST_FACES) & (groups.n_people >= FEWEST_PEOPLE)
    odd = numbers_within(people) % 2 == 1
    person = np.where(judged, _largest(entries.of_rows(~odd), people[~odd]), -1)
    auroc, p = _other_images(entries.of_rows(odd), people[odd], person)
    nothing = np.where(judged, 0.0, np.nan)
    return Identity(
        person=person,
        purity=_purity(entries, people, person) + nothing,
        entropy=_entropy(groups, entries) + nothing,
        auroc=auroc,
        p=p,
    )


def _largest(entries: Entries, people: Int64[np.ndarray, " n_rows"]) -> Int64[np.ndarray, " d_sae"]:
    """The person with the largest sum of activation (the first of equals); −1 where none fires."""
    groups = Groups.of(entries, people)
    sums = groups.sums(entries.values.astype(np.float64))
    order = np.lexsort((-sums, groups.feature))
    return np.where(groups.n_people > 0, np.append(groups.person[order], -1)[groups.indptr[:-1]], -1)


def _other_images(
    entries: Entries, people: Int64[np.ndarray, " n_rows"], person: Int64[np.ndarray, " d_sae"]
) -> tuple[Float64[np.ndarray, " d_sae"], Float64[np.ndarray, " d_sae"]]:
    """AUROC and p of each feature for its person's images."""
    own = people[entries.rows] == person[entries.feature]
    scores = totals(entries.feature[own], rank_scores(entries)[own], entries.d_sae)
    n_own = (np.bincount(people, minlength=person.max(initial=0) + 1)[person]) * (person >= 0)
    fired = np.bincount(entries.feature[own], minlength=entries.d_sae)
    population = np.array(entries.n_rows)
    p = upper_tail(fired, population=population, marked=entries.counts, drawn=n_own)
    auroc = area(scores, entries.counts, n_positive=n_own.astype(np.float64), n_rows=entries.n_rows)
    return auroc, np.where(n_own > 0, p, np.nan)


def _purity(
    entries: Entries, people: Int64[np.ndarray, " n_rows"], person: Int64[np.ndarray, " d_sae"]
) -> Float64[np.ndarray, " d_sae"]:
    rows = top_faces(entries, people, k=TOP, of_a_person=TOP).rows
    of_person = (rows >= 0) & (people[rows] == person[:, None])
    return of_person.sum(axis=1) / np.maximum((rows >= 0).sum(axis=1), 1)


def _entropy(groups: Groups, entries: Entries) -> Float64[np.ndarray, " d_sae"]:
    sums = groups.sums(entries.values.astype(np.float64))
    total = totals(groups.feature, sums, entries.d_sae)
    q = sums / total[groups.feature]
    bits = totals(groups.feature, -q * np.log(q), entries.d_sae)
    return bits / np.log(np.maximum(groups.n_people, FEWEST_PEOPLE))
