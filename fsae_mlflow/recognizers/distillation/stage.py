"""Distillation: a small recognizer learns to return the template of a large one for every view that both see."""

import copy
import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.faces.pictures import take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.parameters import deciding, fingerprint
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces
from fsae_mlflow.recognizers.distillation.held_out import HeldOutFaces
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.recognizers.distillation.training import Step, train
from fsae_mlflow.recognizers.distillation.views import ViewPool, ahead
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.recognizers.student import StudentArchitecture, StudentNetwork, read_student, write_student

Network = TypeVar("Network", bound=nn.Module)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillResult:
    """The student's files, and its metrics on identities that training did not see."""

    weights: Path
    card: Path
    metrics: dict[str, float]

    @property
    def headline(self) -> str:
        """How near the student's templates are to the teacher's, and how well they verify."""
        pairs = f"; pair accuracy {self.metrics['pair_accuracy']:.4f}" if "pair_accuracy" in self.metrics else ""
        return f"cosine {self.metrics['cosine']:.4f} to the teacher on held-out people{pairs}"


def distillation_fingerprint(settings: DistillSettings) -> str:
    """A short hash of what decides the student: settings, the teacher's card, the faces' ids and sizes, the start.

    Raises: UserError for faces or a teacher that cannot be used; OSError for a start that cannot be read.
    """
    inputs = {
        "teacher": load_recognizer(settings.teacher, card=settings.teacher_card).card.to_json(),
        "teacher_card": "",
        "faces": take_inventory(open_source(settings.faces)).digest,
        "start": sha256(Path(settings.start)) if settings.start else "",
    }
    return fingerprint(deciding(settings) | inputs)


def distill(settings: DistillSettings, *, output: Path, on_metrics: OnMetrics) -> DistillResult:
    """Train a student on the cosine between its template and the teacher's, both seeing the same augmented view.

    Function matching as in Beyer et al., "Knowledge distillation: a good teacher is patient and consistent" (arXiv
    2106.05237). The student's weights are a moving average. Writes student.safetensors and card.json to `output`, and
    again every few minutes.

    Raises: UserError for faces, a teacher or a backbone that cannot be used, and for a loss that is not finite.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    faces = AlignedFaces(settings.faces)
    is_held_out = holdout_rows(faces.identities, settings.holdout, seed=settings.seed)
    rows = np.flatnonzero(~is_held_out)
    teacher = _placed(load_recognizer(settings.teacher, card=settings.teacher_card), device)
    torch.manual_seed(settings.seed)
    network = _placed(_network(settings, teacher.card.template_width), device)
    student = _placed(Recognizer(copy.deepcopy(network), _card(settings, teacher.card, n_faces=len(rows))), device)
    held_out = HeldOutFaces(faces, np.flatnonzero(is_held_out), teacher, seed=settings.seed, device=device)
    n_steps = max(settings.epochs * len(rows) // settings.batch_size, 1)
    per_epoch = max(len(rows) // settings.batch_size, 1)
    logger.info("distill: %d faces to train on, %d held out, %d steps", len(rows), is_held_out.sum(), n_steps)

    views = ahead(ViewPool(faces, rows, teacher, settings, device).batches(n_steps), settings.threads)
    started = last_snapshot = time.monotonic()
    losses: list[float] = []

    def report(step: Step) -> dict[str, float]:
        rate = step.number * settings.batch_size / (time.monotonic() - started)
        now = {"loss": float(np.mean(losses)), "lr": step.lr, "views_per_second": rate}
        metrics = held_out.measure(student) | now
        on_metrics(metrics, -(-step.number // per_epoch))
        losses.clear()
        return metrics

    step, metrics = Step(0, 0.0, 0.0), {}
    steps = train(network, student, views, settings, n_steps=n_steps)
    for step in progress(steps, total=n_steps, label="distill", unit="steps"):
        losses.append(step.loss)
        if step.number % per_epoch == 0:
            metrics = report(step)
        if time.monotonic() - last_snapshot > 60 * settings.snapshot_minutes:
            last_snapshot = time.monotonic()
            _write(student, student.card, output)
    if losses:
        metrics = report(step)
    found = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if "cosine" in name or "pair" in name)
    notes = f"{student.card.notes} {step.number} steps of {settings.batch_size} views. Held-out identities: {found}."
    return DistillResult(*_write(student, dataclasses.replace(student.card, notes=notes), output), metrics)


def _placed(module: Network, device: torch.device) -> Network:
    """The module on the device, with channels-last weights: convolutions are twice as fast so."""
    return module.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _network(settings: DistillSettings, width: int) -> StudentNetwork:
    """A new student, or the one to go on with.

    Raises: UserError where the latter's templates have another width than the teacher's.
    """
    if not settings.start:
        names = ("backbone", "backbone_args", "stem_stride", "head", "head_width")
        chosen = {name: getattr(settings, name) for name in names}
        return StudentNetwork(StudentArchitecture(**chosen, template_width=width, input_size=FACE_SIZE))
    network = read_student(Path(settings.start))
    if network.architecture.template_width != width:
        raise UserError(
            f"start: the template width {network.architecture.template_width} of {settings.start} differs from the "
            f"teacher's {width}; start from a student of this teacher."
        )
    return network


def _card(settings: DistillSettings, teacher: RecognizerCard, *, n_faces: int) -> RecognizerCard:
    return RecognizerCard(
        name=settings.name,
        input_size=FACE_SIZE,
        template_width=teacher.template_width,
        licence="research only: the faces and the teacher's training data are for non-commercial research",
        source=f"distilled by fsae_mlflow train_recognizer from {teacher.name}",
        training_data=f"{n_faces} faces of {Path(settings.faces).name}, augmented views",
        notes=f"Teacher's SHA-256 {teacher.weights_sha256}. Backbone {settings.backbone} {settings.backbone_args}.",
    )


def _write(student: Recognizer, card: RecognizerCard, output: Path) -> tuple[Path, Path]:
    """Write the student's weights and the card with their digest."""
    weights, written = output / "student.safetensors", output / "card.json"
    write_student(student.network, weights)  # pyright: ignore[reportArgumentType]
    dataclasses.replace(card, weights_sha256=sha256(weights)).write(written)
    return weights, written
