"""Views of faces, and the teacher's templates of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces
from fsae_mlflow.recognizers.distillation.augmentation import augment
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.recognizers.distillation.views import ViewPool, ahead


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_views_keep_shape_and_range(strength: float) -> None:
    images = torch.rand(9, 3, 112, 112)
    seen = augment(images, strength=strength, mixup=0.5, generator=torch.Generator().manual_seed(0))
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1


def test_no_augmentation_leaves_faces_alone() -> None:
    images = torch.rand(4, 3, 112, 112)
    assert torch.equal(augment(images, strength=0.0, mixup=0.0, generator=torch.Generator()), images)


def test_teacher_sees_the_student_s_view(aligned: Path, settings: DistillSettings, teacher: Recognizer) -> None:
    faces = AlignedFaces(str(aligned))
    pool = ViewPool(faces, np.arange(len(faces.image_ids)), teacher, settings, torch.device("cpu"))
    for images, targets in pool.batches(20):
        assert images.dtype == torch.uint8 and len(images) == settings.batch_size
        torch.testing.assert_close(teacher(to_float(images)), targets, rtol=1e-4, atol=1e-4)


def test_batches_made_ahead_are_the_same() -> None:
    assert list(ahead(iter([(1,), (2,), (3,)]), 1)) == [(1,), (2,), (3,)]
