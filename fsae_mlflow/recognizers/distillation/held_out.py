"""How well a student does on people that it was not trained on."""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces
from fsae_mlflow.verification.pairs import RowPairs, make_pairs
from fsae_mlflow.verification.protocol import cross_validate, squared_distances

BATCH_SIZE = 64
MAX_FOLDS = 10

logger = logging.getLogger(__name__)


class HeldOutFaces:
    """Faces of held-out identities without augmentation: agreement with the teacher, and verification of pairs.

    Pair accuracy is evaluate_lfw's: balanced pairs in up to ten folds, each measured at the threshold of the others.
    With too few people for two folds it is left out.
    """

    def __init__(
        self,
        faces: AlignedFaces,
        rows: Int64[np.ndarray, " held_out"],
        teacher: Recognizer,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        parts = np.array_split(rows, -(-len(rows) // BATCH_SIZE))
        self.images = [torch.from_numpy(faces.read(part)).to(device) for part in parts]
        self.pairs = _pairs([faces.image_ids[row] for row in rows], faces.identities[rows], seed=seed)
        self.targets = self._templates(teacher)
        self.teacher_metrics = self._verify(self.targets, "teacher_pair_accuracy")

    def measure(self, student: Recognizer) -> dict[str, float]:
        """Mean cosine (−1…1) to the teacher's templates, and both pair accuracies (0…1)."""
        templates = self._templates(student)
        cosine = functional.cosine_similarity(templates, self.targets).mean().item()
        return {"cosine": cosine} | self._verify(templates, "pair_accuracy") | self.teacher_metrics

    @torch.no_grad()
    def _templates(self, recognizer: Recognizer) -> Float[Tensor, "held_out d"]:
        return torch.cat([recognizer(to_float(part)) for part in self.images])

    def _verify(self, templates: Float[Tensor, "held_out d"], name: str) -> dict[str, float]:
        if self.pairs is None:
            return {}
        x = templates.float().cpu().numpy()
        distances = squared_distances(x[self.pairs.first], x[self.pairs.second])
        return {name: cross_validate(distances, self.pairs.genuine, self.pairs.fold).mean}


def _pairs(image_ids: list[str], identities: np.ndarray, *, seed: int) -> RowPairs | None:
    """At most 6,000 pairs, or none where the held-out people are too few for two folds."""
    _, counts = np.unique(identities, return_counts=True)
    folds = min(MAX_FOLDS, len(counts) // 2, int((counts > 1).sum()))
    if folds < 2:
        logger.warning(
            "distill: pair accuracy needs four held-out identities, two of them with two faces; there are %d and %d: "
            "it is not measured.",
            len(counts),
            int((counts > 1).sum()),
        )
        return None
    return make_pairs(image_ids, identities, folds=folds, seed=seed)
