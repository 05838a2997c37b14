"""The training loop of a student: its loss, its learning rate, and the moving average that is kept."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from fsae_mlflow.recognizers.distillation.views import Views, autocast
from fsae_mlflow.recognizers.student import StudentNetwork


@dataclass(frozen=True)
class Step:
    """A finished step: its number from 1, its loss (1 − cosine, 0…2) and its learning rate."""

    number: int
    loss: float
    lr: float


def train(
    network: StudentNetwork, average: Recognizer, batches: Iterable[Views], settings: DistillSettings, *, n_steps: int
) -> Iterator[Step]:
    """Train `network` on the cosine between its templates and the teacher's; `average` follows its weights.

    It ends after `n_steps` or at the time limit. The images are normalized as the card of `average` says.

    Raises: ValueError when the loss is not finite.
    """
    optimizer = torch.optim.AdamW(_parameter_groups(network, settings.weight_decay), lr=settings.lr, fused=True)
    network.train()
    started = time.monotonic()
    for number, (images, targets) in enumerate(batches, start=1):
        with autocast(settings, images.device):
            templates = network((to_float(images) - average.mean) / average.std)
        loss = 1 - functional.cosine_similarity(templates.float(), targets.float()).mean()
        if not math.isfinite(loss.item()):
            raise ValueError(f"lr={settings.lr:g} makes the distillation diverge at step {number}; give a lower one.")
        minutes = (time.monotonic() - started) / 60
        done = max(number / n_steps, minutes / settings.minutes if settings.minutes else 0.0)
        lr = settings.lr * _lr_factor(number, n_steps, done)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        _follow(average.network, network, decay=min(settings.ema, number / (number + 10)))
        yield Step(number, loss.item(), lr)
        if done >= 1:
            return


def _lr_factor(number: int, n_steps: int, done: float) -> float:
    """Share of the highest learning rate: up over 200 steps (or a tenth), then linear to 0 as `done` goes to 1."""
    warmup = max(min(200, n_steps // 10), 1)
    return min(number / warmup, max(1 - done, 0.0))


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict]:
    """Weight decay acts on matrices and kernels only, not on biases and batch norm."""
    parameters = list(network.parameters())
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, *, decay: float) -> None:
    """Move the averaged weights and batch-norm statistics towards the network's."""
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    old, new = zip(*((old, new) for old, new in pairs if old.is_floating_point()), strict=True)
    torch._foreach_lerp_(old, new, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
