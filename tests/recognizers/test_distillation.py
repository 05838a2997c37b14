"""Distillation: views that stay faces, held-out people, and a student that learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.distillation import stage as distillation
from fsae_mlflow.recognizers.distillation import views
from fsae_mlflow.recognizers.distillation.augmentation import augment
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.recognizers.distillation.stage import distill, pair_accuracy, split_identities
from fsae_mlflow.recognizers.registry import load_recognizer
from tests.recognizers.networks import small_network

N_PEOPLE, PER_PERSON, WIDTH = 12, 3, 8


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colored gradients, one a person, with noise."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 112)
    for person in range(N_PEOPLE):
        tones = rng.uniform(0, 255, (2, 3))
        base = tones[0] * ramp[:, None, None] + tones[1] * (1 - ramp)[None, :, None] * ramp[::-1, None, None]
        (folder / f"p{person:02d}").mkdir()
        for i in range(PER_PERSON):
            pixels = np.clip(base + rng.normal(0, 10, (112, 112, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"p{person:02d}" / f"{i}.png")
    return folder


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Recognizer:
    recognizer = Recognizer(small_network(WIDTH), RecognizerCard(name="teacher", template_width=WIDTH))
    monkeypatch.setattr(distillation, "load_recognizer", lambda name, card: recognizer)
    return recognizer


def small(faces: Path, **changes: object) -> DistillSettings:
    values = {
        "teacher": "onnx:teacher.onnx",
        "faces": str(faces),
        "backbone": "lcnet_035",
        "backbone_args": "{}",
        "head_width": 32,
        "epochs": 12,
        "batch_size": 8,
        "pool": 64,
        "holdout": 0.2,
        "ema": 0.8,
        "precision": "fp32",
        "device": "cpu",
    }
    return DistillSettings(**(values | changes))


def test_student_learns_and_is_a_recognizer(faces: Path, teacher: Recognizer, tmp_path: Path) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    result = distill(small(faces), output=tmp_path, on_metrics=lambda values, step: logged.append((step, values)))
    assert [step for step, _ in logged] == sorted({step for step, _ in logged})
    assert logged[-1][1]["loss"] < logged[0][1]["loss"]
    assert result.cosine > 0.5
    student = load_recognizer(f"student:{result.weights}")
    assert student(torch.rand(2, 3, 112, 112)).shape == (2, WIDTH)
    assert "teacher" in student.card.source and "research only" in student.card.license


def test_same_seed_same_student(faces: Path, teacher: Recognizer, tmp_path: Path) -> None:
    settings = small(faces, epochs=1)
    first, second = (
        distill(settings, output=tmp_path / name, on_metrics=lambda *_: None).weights.read_bytes() for name in "ab"
    )
    assert first == second


def test_time_limit_ends_the_training(faces: Path, teacher: Recognizer, tmp_path: Path) -> None:
    logged: list[int] = []
    settings = small(faces, epochs=10_000, minutes=0.01)
    assert distill(settings, output=tmp_path, on_metrics=lambda _, step: logged.append(step)).weights.is_file()


def test_half_precision_trains_too(faces: Path, teacher: Recognizer, tmp_path: Path) -> None:
    settings = small(faces, epochs=1, precision="bf16")
    assert np.isfinite(distill(settings, output=tmp_path, on_metrics=lambda *_: None).cosine)


def test_nobody_is_on_both_sides() -> None:
    identities = np.repeat(np.arange(40), 3)
    training, held_out = split_identities(identities, 0.1, seed=0)
    assert len(held_out) == 12 and len(training) == 108
    assert not set(identities[training]) & set(identities[held_out])


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_views_keep_shape_and_range(strength: float) -> None:
    images = torch.rand(9, 3, 112, 112)
    seen = augment(images, strength=strength, mixup=0.5, generator=torch.Generator().manual_seed(0))
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1


def test_no_augmentation_leaves_faces_alone() -> None:
    images = torch.rand(4, 3, 112, 112)
    assert torch.equal(augment(images, strength=0.0, mixup=0.0, generator=torch.Generator()), images)


def test_teacher_sees_the_student_s_view(faces: Path, teacher: Recognizer) -> None:
    settings = small(faces)
    source = views.AlignedFaces(str(faces))
    pool = views.ViewPool(source, np.arange(len(source.paths)), teacher, settings, torch.device("cpu"))
    for images, targets in pool.batches(20):
        assert images.dtype == torch.uint8 and len(images) == settings.batch_size
        torch.testing.assert_close(teacher(images.float() / 255), targets, rtol=1e-4, atol=1e-4)


def test_batches_made_ahead_are_the_same() -> None:
    assert list(views.ahead(iter([(1,), (2,), (3,)]), 1)) == [(1,), (2,), (3,)]


def test_pair_accuracy_on_templates_one_can_count() -> None:
    identities = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert pair_accuracy(apart, identities) == 1.0
    assert pair_accuracy(apart, torch.tensor([0, 1, 2, 3])) == 0.5
    assert pair_accuracy(apart[[0, 2, 1, 3]], identities) < 1.0


def test_lr_that_diverges_is_named(faces: Path, teacher: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lr=1e\\+30 makes the distillation diverge"):
        distill(small(faces, lr=1e30), output=tmp_path, on_metrics=lambda *_: None)


def test_faces_that_cannot_serve_are_refused(tmp_path: Path, teacher: Recognizer) -> None:
    with pytest.raises(ValueError, match="faces must be a folder"):
        views.AlignedFaces(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="two identities or more"):
        views.AlignedFaces(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"x\.jpg cannot be read"):
        views.AlignedFaces(str(tmp_path)).read(np.array([0]))
