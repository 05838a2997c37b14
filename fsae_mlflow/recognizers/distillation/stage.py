"""Distilling any recognizer into a small one, which learns to return its template for whatever view it sees."""

import copy
import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fsae_mlflow.compute import choose_device
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard, sha256
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.recognizers.distillation.views import SIZE, AlignedFaces, ViewPool, ahead, autocast
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.recognizers.student import StudentArchitecture, StudentNetwork, read_student, write_student

Network = TypeVar("Network", bound=nn.Module)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistillResult:
    """Where the student lies and how it did on identities that neither training nor choosing saw."""

    weights: Path
    card: Path
    cosine: float
    pair_accuracy: float
    teacher_pair_accuracy: float
    views_per_second: float


def distill(settings: DistillSettings, *, output: Path, on_metrics: OnMetrics) -> DistillResult:
    """Train a student on the cosine between its template and the teacher's, both seeing the same augmented view.

    Function matching as in Beyer et al., "Knowledge distillation: a good teacher is patient and consistent" (arXiv
    2106.05237). The weights kept are a moving average. Writes student.safetensors and card.json to `output`, again
    every few minutes.

    Raises: ValueError for faces, a teacher or a backbone that cannot be used, and for a loss that is not finite.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    faces = AlignedFaces(settings.faces)
    training, held_out = split_identities(faces.identities, settings.holdout, settings.seed)
    teacher = _placed(load_recognizer(settings.teacher, card=settings.teacher_card), device)
    torch.manual_seed(settings.seed)
    student = _placed(_student(settings, teacher.card.template_width), device)
    average = copy.deepcopy(student).requires_grad_(False)
    views = ViewPool(faces, training, teacher, settings, device)
    n_steps = max(settings.epochs * len(training) // settings.batch_size, 1)
    optimizer = torch.optim.AdamW(_groups(student, settings.weight_decay), lr=settings.lr, fused=True)
    examiner = Examiner(faces, held_out, teacher, settings, device)
    per_epoch = max(len(training) // settings.batch_size, 1)
    card = _card(settings, teacher.card, n_faces=len(training))
    logger.info("distill: %d faces to learn from, %d held out, %d steps", len(training), len(held_out), n_steps)

    started = last_snapshot = time.monotonic()
    losses: list[float] = []
    step = 0
    for step, (images, targets) in enumerate(
        progress(ahead(views.batches(n_steps), settings.threads), total=n_steps, label="distill", unit="steps"), start=1
    ):
        student.train()
        with autocast(settings, device):
            templates = student(normalized(images, card))
        loss = 1 - functional.cosine_similarity(templates.float(), targets.float()).mean()
        elapsed = (time.monotonic() - started) / 60
        done = max(step / n_steps, elapsed / settings.minutes if settings.minutes else 0.0)
        lr = settings.lr * _rate(step, n_steps, done)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _follow(average, student, min(settings.ema, step / (step + 10)))
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise ValueError(f"lr={settings.lr:g} makes the distillation diverge at step {step}; give a lower one.")
        if step % per_epoch == 0 or step == n_steps:
            metrics = examiner.measure(average, card)
            rate = step * settings.batch_size / (time.monotonic() - started)
            metrics |= {"loss": float(np.mean(losses)), "lr": lr, "views_per_second": rate}
            on_metrics(metrics, round(step / per_epoch))
            losses.clear()
        if done >= 1:
            break
        if time.monotonic() - last_snapshot > 60 * settings.snapshot_minutes:
            last_snapshot = time.monotonic()
            _write(average, card, output)
    rate = step * settings.batch_size / (time.monotonic() - started)
    metrics = examiner.measure(average, card)
    notes = (
        f"{card.notes} {step} steps of {settings.batch_size} views. Held-out identities: cosine to the teacher "
        f"{metrics['cosine']:.4f}, pairs {metrics['pair_accuracy']:.4f} "
        f"(teacher {metrics['teacher_pair_accuracy']:.4f})."
    )
    weights, written = _write(average, dataclasses.replace(card, notes=notes), output)
    return DistillResult(
        weights, written, metrics["cosine"], metrics["pair_accuracy"], metrics["teacher_pair_accuracy"], rate
    )


def split_identities(identities: np.ndarray, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows held out, such that no identity is in both."""
    n = int(identities.max()) + 1
    chosen = np.random.default_rng(seed).permutation(n)[: max(round(n * holdout), 1)]
    held = np.isin(identities, chosen)
    return np.flatnonzero(~held), np.flatnonzero(held)


def normalized(images: Tensor, card: RecognizerCard) -> Tensor:
    """RGB bytes as the student's network takes them."""
    return (images.float() - card.mean[0]) / card.std[0]


class Examiner:
    """Held-out identities as they are: the student's agreement with the teacher, and how well it verifies."""

    def __init__(
        self,
        faces: AlignedFaces,
        rows: np.ndarray,
        teacher: Recognizer,
        settings: DistillSettings,
        device: torch.device,
    ) -> None:
        self.settings, self.device = settings, device
        self.images = [
            (faces.read(part) * 255).to(torch.uint8).to(device).contiguous(memory_format=torch.channels_last)
            for part in np.array_split(rows, max(len(rows) // 64, 1))
        ]
        self.identities = torch.from_numpy(faces.identities[rows])
        with torch.no_grad():
            self.targets = torch.cat([teacher(part.float() / 255) for part in self.images])
        self.teacher_accuracy = pair_accuracy(self.targets, self.identities)

    def measure(self, network: StudentNetwork, card: RecognizerCard) -> dict[str, float]:
        """Cosine (−1…1) and pair accuracies (0…1) of a student in evaluation mode."""
        network.eval()
        with torch.no_grad():
            templates = torch.cat([network(normalized(part, card)) for part in self.images])
        return {
            "cosine": functional.cosine_similarity(templates, self.targets).mean().item(),
            "pair_accuracy": pair_accuracy(templates, self.identities),
            "teacher_pair_accuracy": self.teacher_accuracy,
        }


def pair_accuracy(templates: Float[Tensor, "n d"], identities: Tensor) -> float:
    """Balanced accuracy (0…1) over all pairs at the best cosine threshold; 0.5 where no identity has two faces."""
    unit = functional.normalize(templates).cpu()
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    scores, same = (unit @ unit.T)[first, second], identities[first] == identities[second]
    genuine, impostor = scores[same].sort().values, scores[~same].sort().values
    if not len(genuine) or not len(impostor):
        return 0.5
    accepted = 1 - torch.searchsorted(genuine, genuine).double() / len(genuine)
    refused = torch.searchsorted(impostor, genuine).double() / len(impostor)
    return ((accepted + refused) / 2).max().item()


def _placed(network: Network, device: torch.device) -> Network:
    """On the device, channels last: convolutions are twice as fast so."""
    return network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _architecture(settings: DistillSettings, width: int) -> StudentArchitecture:
    names = ("backbone", "backbone_args", "stem_stride", "head", "head_width")
    return StudentArchitecture(
        **{name: getattr(settings, name) for name in names}, template_width=width, input_size=SIZE
    )


def _student(settings: DistillSettings, width: int) -> StudentNetwork:
    """A new student, or the one to go on with.

    Raises: ValueError where the latter gives templates of another width than the teacher's.
    """
    if not settings.start:
        return StudentNetwork(_architecture(settings, width))
    student = read_student(Path(settings.start))
    if student.architecture.template_width != width:
        raise ValueError(
            f"start: {settings.start} gives templates of width {student.architecture.template_width}, the teacher "
            f"{width}; start from a student of this teacher."
        )
    return student


def _rate(step: int, n_steps: int, done: float) -> float:
    """Share of the highest learning rate: up over 200 steps (or a tenth), then linear to 0 as `done` goes to 1."""
    warm = max(min(200, n_steps // 10), 1)
    return min(step / warm, max(1 - done, 0.0))


def _groups(network: nn.Module, weight_decay: float) -> list[dict]:
    parameters = list(network.parameters())
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(average: nn.Module, student: nn.Module, decay: float) -> None:
    """Move the averaged weights and batch-norm statistics towards the student's."""
    old, new = list(average.state_dict().values()), list(student.state_dict().values())
    pairs = [(mine, its) for mine, its in zip(old, new, strict=True) if mine.is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in pairs], [its for _, its in pairs], 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


def _card(settings: DistillSettings, teacher: RecognizerCard, *, n_faces: int) -> RecognizerCard:
    return RecognizerCard(
        name=settings.name,
        input_size=SIZE,
        template_width=teacher.template_width,
        licence="research only: the faces and the teacher's training data are for non-commercial research",
        source=f"distilled by fsae_mlflow train_recognizer from {teacher.name}",
        training_data=f"{n_faces} faces of {Path(settings.faces).name}, augmented views",
        notes=f"Teacher's SHA-256 {teacher.weights_sha256}. Backbone {settings.backbone} {settings.backbone_args}.",
    )


def _write(network: StudentNetwork, card: RecognizerCard, output: Path) -> tuple[Path, Path]:
    weights, written = output / "student.safetensors", output / "card.json"
    write_student(network, weights)
    dataclasses.replace(card, weights_sha256=sha256(weights)).write(written)
    return weights, written
