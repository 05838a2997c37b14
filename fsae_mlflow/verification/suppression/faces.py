"""The labeled faces on which it is probed what is left of attributes."""

import logging
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.labels.attributes import Labels
from fsae_mlflow.features.probes import can_be_probed
from fsae_mlflow.features.suppression import Selection
from fsae_mlflow.identities import drawn_below, hashed, holdout_rows
from fsae_mlflow.templates.set import TemplateSet

MOST_FACES = 50_000
"""Labeled faces that are probed, of people drawn at random."""
CONFIRM = 0.5
"""Share of the people whom probes are tested on."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Labeled faces to probe: their folder, who they are, on whom probes are tested, the attributes to erase and
    others, and the names of those of the selection that no probe can be trained on.
    """

    folder: Path
    templates: Float32[np.ndarray, "n d_in"]
    people: Int64[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]
    targets: dict[str, Float64[np.ndarray, " n"]]
    others: dict[str, Float64[np.ndarray, " n"]]
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class _Split:
    """Labeled rows, their people by number, and on whom of them probes are tested."""

    rows: Int64[np.ndarray, " n"]
    people: Int64[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]

    @classmethod
    def of(cls, identities: Shaped[np.ndarray, " all"], rows: Int64[np.ndarray, " n"], *, seed: int) -> "_Split | None":
        """The split of the rows; None where they are of fewer than two people."""
        people = np.unique(identities[rows].astype(str), return_inverse=True)[1]
        if len(set(people.tolist())) <= 1:
            return None
        return cls(rows=rows, people=people, test=holdout_rows(identities[rows], CONFIRM, seed=seed))

    def probes(self, attribute: Float64[np.ndarray, " all"]) -> bool:
        """Whether enough people have the attribute and lack it."""
        return can_be_probed(attribute[self.rows], self.people, self.test)


def faces_to_probe(selection: Selection, labeled: TemplateSet, labels: Labels, *, seed: int) -> Faces | None:
    """The labeled faces on which the attributes of a selection are probed; None where none of them can be.

    Attributes that were inferred from the features are left out where the labels lack them or have them of too few
    people.

    Raises: UserError where that is so of an attribute that was named.
    """
    if not selection.inferred:
        for name in selection.attributes:
            if name not in labels.booleans:
                nearest = get_close_matches(name, labels.booleans, n=5, cutoff=0.0)
                raise UserError(
                    f"attributes: without=attribute:{name} needs labels of {name} with the values 0 and 1; the labels "
                    f"have {', '.join(nearest) or 'none'}. Add a column {name}, or leave attributes out."
                )
    drawn = hashed(labeled.identities) <= drawn_below(MOST_FACES, len(labeled))
    names = [name for name in selection.attributes if name in labels.booleans]
    # Probes share the faces of which all attributes are known: those that are known of most faces come first.
    if selection.inferred:
        names.sort(key=lambda name: np.isnan(labels.booleans[name]).sum())
    targets: list[str] = []
    split = None
    for name in names:
        rows = np.flatnonzero(drawn & ~np.isnan([labels.booleans[one] for one in (*targets, name)]).any(axis=0))
        wider = _Split.of(labeled.identities, rows, seed=seed)
        if wider is not None and all(wider.probes(labels.booleans[one]) for one in (*targets, name)):
            targets, split = [*targets, name], wider
        elif not selection.inferred:
            raise UserError(
                f"attributes: to train and test a probe of {name}, each half of the people must have ten with it and "
                f"ten without it; there are {len(set(labeled.identities[rows].tolist())):,} labeled people. Label more "
                "people, or leave attributes out."
            )
    if split is None:
        logger.warning(
            "without: the features %s stand for no attribute that can be probed; no probe is trained.", selection.words
        )
        return None
    others = {name: has for name, has in labels.booleans.items() if name not in targets and split.probes(has)}
    return Faces(
        folder=labeled.folder,
        templates=labeled.templates_of(split.rows),
        people=split.people,
        test=split.test,
        targets={name: labels.booleans[name][split.rows] for name in targets},
        others={name: has[split.rows] for name, has in others.items()},
        skipped=[name for name in selection.attributes if name not in targets],
    )
