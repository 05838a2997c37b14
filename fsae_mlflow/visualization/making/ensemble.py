"""A second recognizer that images are optimized for too, so that they hold for more than one."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.labels.judge_templates import judge_templates
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.targets import Target

N_OTHERS = 1000


class Ensemble:
    """The cosine of an image's template, minus the mean of real faces', with a target's direction in the space of the
    second recognizer: the mean of its feature's top faces minus that of faces drawn at random. All are faces of the
    people on whom images are not judged.
    """

    def __init__(
        self,
        recognizer: nn.Module,
        targets: Sequence[Target],
        *,
        templates: TemplateSet,
        activity: Activity,
        confirm: Bool[np.ndarray, " n_rows"],
        seed: int,
        device: torch.device,
    ) -> None:
        self.recognizer = recognizer.to(device).eval()
        others = np.random.default_rng(seed).permutation(np.flatnonzero(~confirm))[:N_OTHERS]
        features = sorted({feature for target in targets for feature, _ in target.signed})
        top = {feature: activity.top_of(feature)[0] for feature in features}
        top = {feature: rows[~confirm[rows]] for feature, rows in top.items()}
        rows = np.unique(np.concatenate([others, *top.values()])).astype(np.int64)
        found = judge_templates(recognizer, templates, rows, device)
        mean = found[np.isin(rows, others)].mean(axis=0)
        toward = {
            feature: found[np.isin(rows, own)].mean(axis=0) - mean if len(own) else np.zeros_like(mean)
            for feature, own in top.items()
        }
        self.mean = torch.from_numpy(mean).to(device)
        self.directions = {
            target: torch.from_numpy(np.sum([sign * toward[feature] for feature, sign in target.signed], axis=0)).to(
                device
            )
            for target in targets
        }

    def objective(self, targets: Sequence[Target], images: Float[Tensor, "images 3 h w"]) -> Float[Tensor, " images"]:
        """The cosine of each image for its target."""
        directions = torch.stack([self.directions[target] for target in targets])
        return F.cosine_similarity(F.normalize(self.recognizer(images), dim=1) - self.mean, directions)
