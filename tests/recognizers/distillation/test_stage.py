"""Distillation from faces to a student that is a recognizer."""

import shutil
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fsae_mlflow.parameters import deciding
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.distillation import stage, training
from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.recognizers.distillation.stage import distill, distillation_fingerprint
from fsae_mlflow.recognizers.registry import load_recognizer
from tests.recognizers.distillation.conftest import WIDTH

Logged = list[tuple[int, dict[str, float]]]


def test_student_learns_and_is_a_recognizer(settings: DistillSettings, teacher: Recognizer, tmp_path: Path) -> None:
    logged: Logged = []
    result = distill(settings, output=tmp_path, on_metrics=lambda values, step: logged.append((step, values)))
    assert [step for step, _ in logged] == sorted({step for step, _ in logged})
    assert logged[-1][1]["loss"] < logged[0][1]["loss"]
    assert result.metrics == logged[-1][1]
    assert result.metrics["cosine"] > 0.5
    assert 0.5 < result.metrics["teacher_pair_accuracy"] <= 1 and 0 <= result.metrics["pair_accuracy"] <= 1
    student = load_recognizer(f"student:{result.weights}")
    assert student(torch.rand(2, 3, 112, 112)).shape == (2, WIDTH)
    assert "teacher" in student.card.source and "research only" in student.card.licence
    assert f"cosine {result.metrics['cosine']:.4f}" in student.card.notes
    assert student.card.training_data.startswith("24 faces of ")


def test_nobody_is_both_trained_on_and_measured(
    settings: DistillSettings, teacher: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people: dict[str, set[str]] = {}

    def note(name: str) -> None:
        original = getattr(stage, name)

        def noting(faces: AlignedFaces, rows: np.ndarray, *others: object, **options: object) -> object:
            people[name] = set(faces.identities[rows])
            return original(faces, rows, *others, **options)

        monkeypatch.setattr(stage, name, noting)

    note("ViewPool")
    note("HeldOutFaces")
    distill(replace(settings, epochs=1), output=tmp_path, on_metrics=lambda *_: None)
    assert len(people["ViewPool"]) == 8 and len(people["HeldOutFaces"]) == 4
    assert not people["ViewPool"] & people["HeldOutFaces"]


def test_the_fingerprint_is_of_contents_not_of_paths(
    settings: DistillSettings, teacher: Recognizer, aligned: Path, tmp_path: Path
) -> None:
    first, start = distillation_fingerprint(settings), tmp_path / "start.safetensors"
    moved = replace(settings, faces=str(shutil.copytree(aligned, tmp_path / "faces")), device="auto")
    assert distillation_fingerprint(moved) == first
    (tmp_path / "faces" / "p00" / "0.png").unlink()
    start.write_bytes(b"1")
    found = {first, distillation_fingerprint(moved), distillation_fingerprint(replace(settings, start=str(start)))}
    start.write_bytes(b"2")
    found.add(distillation_fingerprint(replace(settings, start=str(start))))
    found.add(distillation_fingerprint(replace(settings, lr=1e-3)))
    teacher.card = replace(teacher.card, weights_sha256="of another teacher")
    found.add(distillation_fingerprint(settings))
    assert len(found) == 6


def test_same_seed_same_student(settings: DistillSettings, teacher: Recognizer, tmp_path: Path) -> None:
    first, second = (
        distill(replace(settings, epochs=1), output=tmp_path / name, on_metrics=lambda *_: None).weights.read_bytes()
        for name in "ab"
    )
    assert first == second


def test_time_limit_ends_the_training(
    settings: DistillSettings, teacher: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=6)  # seconds a step
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    logged: Logged = []
    limited = replace(settings, epochs=20, minutes=1.0)
    result = distill(limited, output=tmp_path, on_metrics=lambda values, step: logged.append((step, values)))
    assert " 10 steps of 8 views." in RecognizerCard.from_json(result.card).notes
    assert [step for step, _ in logged] == [1, 2, 3, 4] and logged[-1][1] == result.metrics
    rates = [values["lr"] for _, values in logged]
    assert rates == sorted(rates, reverse=True) and rates[-1] == 0 < rates[-2]


def test_half_precision_trains_too(settings: DistillSettings, teacher: Recognizer, tmp_path: Path) -> None:
    half = replace(settings, epochs=1, precision="bf16")
    assert np.isfinite(distill(half, output=tmp_path, on_metrics=lambda *_: None).metrics["cosine"])


def test_lr_that_diverges_is_named(settings: DistillSettings, teacher: Recognizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lr=1e\+30 makes the distillation diverge at step \d+; give a lower one"):
        distill(replace(settings, lr=1e30), output=tmp_path, on_metrics=lambda *_: None)


def test_start_of_another_teacher_is_refused(settings: DistillSettings, teacher: Recognizer, tmp_path: Path) -> None:
    start = distill(replace(settings, epochs=1), output=tmp_path, on_metrics=lambda *_: None).weights
    again = distill(replace(settings, epochs=1, start=str(start)), output=tmp_path / "b", on_metrics=lambda *_: None)
    assert again.weights.is_file()
    teacher.card = replace(teacher.card, template_width=16)
    with pytest.raises(ValueError, match=r"template width 8 of .* differs from the teacher's 16"):
        distill(replace(settings, start=str(start)), output=tmp_path / "c", on_metrics=lambda *_: None)


def test_speed_does_not_decide_the_result(settings: DistillSettings) -> None:
    """The default output folder is named by the deciding settings, so that the same command finds it again."""
    elsewhere = replace(settings, device="auto", threads=3, output="x", snapshot_minutes=1.0)
    assert deciding(elsewhere) == deciding(settings) != deciding(replace(settings, minutes=1.0))
