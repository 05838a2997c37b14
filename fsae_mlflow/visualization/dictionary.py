"""An SAE, what images are made of it, and how real faces fire that."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64

from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import Survey, encoded
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.targets import Target


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """An SAE and targets of it. The rows of `activity` are the SAE's features and, after them, the combined targets."""

    sae: SparseAutoencoder
    activity: Activity
    targets: list[Target]

    @classmethod
    def of(
        cls,
        sae: SparseAutoencoder,
        targets: Sequence[Target],
        *,
        activity: Activity,
        templates: TemplateSet,
        batch_size: int,
    ) -> "Dictionary":
        """The targets of an SAE whose features templates fire as `activity` says; templates are encoded once more where
        a target combines features.
        """
        combined = [target for target in targets if target.combined]
        if combined:
            joint = _surveyed(sae, combined, activity, templates, batch_size)
            activity = activity.followed_by(joint)
        return cls(sae=sae, activity=activity, targets=list(targets))

    @property
    def maxima(self) -> Float64[np.ndarray, " d_sae"]:
        """The largest activation of each feature."""
        return self.activity.maxima[: self.sae.d_sae]

    def row(self, target: Target) -> int:
        """The row of `activity` that a target has."""
        return self._combined[target] if target.combined else target.feature

    @cached_property
    def _combined(self) -> dict[Target, int]:
        return {
            target: self.sae.d_sae + place
            for place, target in enumerate(target for target in self.targets if target.combined)
        }


def _surveyed(
    sae: SparseAutoencoder, targets: Sequence[Target], activity: Activity, templates: TemplateSet, batch_size: int
) -> Activity:
    """How templates fire combined targets."""
    used = sorted({feature for target in targets for feature, _ in target.signed})
    maxima = torch.tensor(activity.maxima[used], dtype=torch.float32)
    of_used = [target.renumbered(used) for target in targets]
    found = Survey(len(targets), most=activity.top.rows.shape[1])
    for batch in encoded(sae, templates, batch_size=batch_size, label="combinations"):
        features = torch.from_numpy(batch.entries.table(batch.entries.values)[used].toarray().T)
        joint = torch.stack([target.activation(features, maxima) for target in of_used], dim=1)
        found.add(Entries.of(joint.numpy()), batch.people, first=batch.first)
    return found.activity
