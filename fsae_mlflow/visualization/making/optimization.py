"""Gradient ascent on several images at once that do not influence each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.progress import progress
from fsae_mlflow.visualization.making.transforms import Transforms
from fsae_mlflow.visualization.objectives.base import Objective
from fsae_mlflow.visualization.parametrizations.base import Parametrization
from fsae_mlflow.visualization.targets import Target


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image to make: its target and its seed."""

    target: Target
    seed: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.target.stem}-seed-{self.seed}.png"

    def generator(self) -> torch.Generator:
        """The image's random generator; it depends on target and seed alone."""
        fired, silent = self.target.fired, self.target.silent
        entropy = [len(fired), len(silent), *fired, *silent, self.seed]
        mixed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


@dataclass(frozen=True, kw_only=True)
class Record:
    """The images after `step` steps, one number per image.

    `objective`: what is maximized, before the penalty. `activation`: the target's. `norm`: ‖x‖ of the template
    in the recognizer's units.
    """

    step: int
    objective: Float[np.ndarray, " images"]
    activation: Float[np.ndarray, " images"]
    norm: Float[np.ndarray, " images"]


OnImages = Callable[[Float[Tensor, "images 3 h w"], Record], None]


def optimize(
    parametrization: Parametrization,
    *,
    generators: Sequence[torch.Generator],
    objective: Objective,
    recognizer: nn.Module,
    steps: int,
    lr: float,
    transforms: Transforms,
    record_every: int,
    ensemble: Callable[[Float[Tensor, "images 3 h w"]], Float[Tensor, " images"]] | None = None,
    on_images: OnImages | None = None,
    label: str = "visualize",
) -> tuple[Float[Tensor, "images 3 h w"], list[Record]]:
    """Maximize the objective of every image by AdamW; return the images (RGB, 0…1) and the records.

    The result of an image does not depend on the other images: losses are summed, gradients are not clipped, and the
    recognizer is in eval mode. `ensemble` adds a number of another recognizer to each image's objective. `on_images`
    gets the images at every record.

    Raises: UserError where an objective is not finite.
    """
    optimizer = torch.optim.AdamW(parametrization.parameters(), lr=lr)
    recognizer.eval()
    records: list[Record] = []

    def record(step: int, images: Float[Tensor, "images 3 h w"]) -> None:
        records.append(_record(step, images, objective, recognizer))
        if on_images is not None:
            on_images(images, records[-1])

    def note() -> str:
        return f"objective {records[-1].objective.mean():.3g}" if records else ""

    for step in progress(range(1, steps + 1), total=steps, label=label, unit="steps", note=note):
        optimizer.zero_grad(set_to_none=True)
        images = parametrization()
        # Channels-last memory is fastest to convolve.
        seen = transforms(images, generators).contiguous(memory_format=torch.channels_last)
        value = objective(recognizer(seen))
        if ensemble is not None:
            value = value + ensemble(seen)
        if not torch.isfinite(value).all():
            raise UserError(f"The objective is not finite at step {step}; lower lr (now {lr}).")
        if (step - 1) % record_every == 0:
            record(step - 1, images.detach())
        (parametrization.penalty() - value).sum().backward()
        optimizer.step()
    with torch.no_grad():
        images = parametrization()
    record(steps, images)
    if not np.isfinite(records[-1].objective).all():
        raise UserError(f"The objective is not finite after step {steps}; lower lr (now {lr}).")
    return images, records


@torch.no_grad()
def _record(
    step: int,
    images: Float[Tensor, "n 3 h w"],
    objective: Objective,
    recognizer: nn.Module,
) -> Record:
    templates = recognizer(images)
    return Record(
        step=step,
        objective=objective(templates).cpu().numpy(),
        activation=objective.activations(templates).cpu().numpy(),
        norm=templates.norm(dim=1).cpu().numpy(),
    )
