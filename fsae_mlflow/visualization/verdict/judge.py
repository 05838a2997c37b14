"""A second recognizer's opinion of an image: whether it is like the feature's top faces, and whether it has the
attribute that the feature is read as.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped, UInt8
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from torch import nn
from torch.nn import functional as F

from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.labels.judge_templates import judge_templates
from fsae_mlflow.templates.set import TemplateSet

N_OTHERS = 3000
FEWEST_TOP = 5
# Each fold of a probe needs people of either kind to be fitted on.
FOLDS, FEWEST_PEOPLE = 5, 10
N_TOP = 20
PICTURES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Another recognizer, with its L2-normalized `templates` of real faces (`rows` of the set, ascending, of the
    identities `people`), all of the people on whom images are judged: those that were `drawn` at random, and top faces
    of features.
    """

    recognizer: nn.Module
    rows: Int64[np.ndarray, " n"]
    people: Shaped[np.ndarray, " n"]
    drawn: Bool[np.ndarray, " n"]
    templates: Float32[np.ndarray, "n d"]
    device: torch.device

    @classmethod
    def of(
        cls,
        recognizer: nn.Module,
        *,
        templates: TemplateSet,
        top: Sequence[Int64[np.ndarray, " _"]],
        confirm: Bool[np.ndarray, " n_rows"],
        seed: int,
        device: torch.device,
    ) -> "Judge":
        """The judge of features with the given top faces."""
        others = np.random.default_rng(seed).permutation(np.flatnonzero(confirm))[:N_OTHERS]
        rows = np.unique(np.concatenate([others, *top])).astype(np.int64)
        return cls(
            recognizer=recognizer.to(device).eval(),
            rows=rows,
            people=templates.identities[rows],
            drawn=np.isin(rows, others),
            templates=judge_templates(recognizer, templates, rows, device),
            device=device,
        )

    @torch.no_grad()
    def see(self, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Float32[np.ndarray, "n d"]:
        """The L2-normalized templates of pictures."""
        parts = [
            F.normalize(self.recognizer(to_float(np.stack(pictures[first : first + PICTURES_AT_ONCE])).to(self.device)))
            for first in range(0, len(pictures), PICTURES_AT_ONCE)
        ]
        return torch.cat(parts).cpu().numpy() if parts else np.empty((0, self.templates.shape[1]), np.float32)

    def auc(self, seen: Float32[np.ndarray, " d"], top: Int64[np.ndarray, " k"], *, but: int = -1) -> float:
        """The probability that the picture is more similar (cosine) to one of the top faces than to another face; nan
        for fewer than 5 top faces. The face in row `but` is left out: the picture itself, where it is a real face.
        """
        top = top[top != but]
        if len(top) < FEWEST_TOP:
            return float("nan")
        similarity = self.templates @ seen
        is_top = np.isin(self.rows, top)
        others = np.sort(similarity[self.drawn & ~is_top & (self.rows != but)])
        below = np.searchsorted(others, similarity[is_top], "left") + np.searchsorted(
            others, similarity[is_top], "right"
        )
        return float(below.mean() / (2 * len(others)))

    def probe(self, has: Float64[np.ndarray, " n_rows"]) -> "Probe | None":
        """A probe of an attribute (0, 1, nan where unknown); None where fewer than 10 people have it or lack it.

        The faces without the attribute get their scores from probes that were fitted on other people.
        """
        labels = has[self.rows]
        known = ~np.isnan(labels)
        x, with_it, people = self.templates[known], labels[known] > 0, self.people[known]
        if min(len(np.unique(people[with_it])), len(np.unique(people[~with_it]))) < FEWEST_PEOPLE:
            return None
        model = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced")
        folds = GroupKFold(FOLDS, shuffle=True, random_state=0)
        predicted = cross_val_predict(model, x, with_it, groups=people, cv=folds, method="decision_function")
        scores = np.asarray(predicted, np.float64)
        return Probe(model.fit(x, with_it), np.sort(scores[~with_it]))


@dataclass(frozen=True)
class Probe:
    """A logistic regression on the judge's templates, and scores of the faces without the attribute, ascending."""

    model: LogisticRegression
    without: Float[np.ndarray, " n"]

    def percentile(self, seen: Float32[np.ndarray, " d"]) -> float:
        """The share, in percent, of real faces without the attribute that score lower than the picture."""
        score = self.model.decision_function(seen[None])[0]
        return 100 * float(np.searchsorted(self.without, score) / len(self.without))


def top_faces(activity: Activity, feature: int, confirm: Bool[np.ndarray, " n_rows"]) -> Int64[np.ndarray, " k"]:
    """The rows of a feature's top faces that are of the people on whom images are judged, at most 20."""
    rows, _ = activity.top_of(feature)
    return rows[confirm[rows]][:N_TOP]


def probes_of(
    judge: Judge, attributes: Sequence[str], labels: Mapping[str, Float64[np.ndarray, " n_rows"]]
) -> dict[str, Probe]:
    """A probe for each of the attributes that are labeled often enough."""
    found = {name: judge.probe(labels[name]) for name in dict.fromkeys(attributes) if name in labels}
    return {name: probe for name, probe in found.items() if probe is not None}
