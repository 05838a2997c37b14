"""Gradient ascent on several images at once that do not influence each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.objective import gate_objective, jittered
from fsae_mlflow.visualization.parametrizations.base import Parametrization


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image to make: its feature and its seed."""

    feature: int
    seed: int

    def generator(self) -> torch.Generator:
        """The image's random generator; it depends on feature and seed alone."""
        mixed = np.random.SeedSequence([self.feature, self.seed]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))


@dataclass(frozen=True, kw_only=True)
class Record:
    """The images after `step` steps, one number per image.

    `objective`: W_gate (s·x − b_dec) of the image's feature. `activation`: the feature itself. `norm`: ‖x‖ of the
    template in the recognizer's units.
    """

    step: int
    objective: Float[np.ndarray, " images"]
    activation: Float[np.ndarray, " images"]
    norm: Float[np.ndarray, " images"]


def optimize(
    jobs: Sequence[Job],
    make: Callable[[Sequence[torch.Generator]], Parametrization],
    *,
    recognizer: nn.Module,
    sae: SparseAutoencoder,
    steps: int,
    lr: float,
    jitter: int,
    record_every: int,
    device: torch.device,
    label: str = "visualize",
) -> tuple[Float[Tensor, "images 3 h w"], list[Record]]:
    """Maximize the gate objective of every job's feature by AdamW; return the images (RGB, 0…1) and the records.

    The result of a job does not depend on the other jobs: losses are summed, gradients are not clipped, and the
    recognizer is in eval mode.

    Raises: UserError where an objective is not finite.
    """
    generators = [job.generator() for job in jobs]
    parametrization = make(generators).to(device)
    optimizer = torch.optim.AdamW(parametrization.parameters(), lr=lr)
    features = torch.tensor([job.feature for job in jobs], dtype=torch.int64, device=device)
    recognizer.eval()
    records = []
    for step in progress(range(1, steps + 1), total=steps, label=label, unit="steps"):
        optimizer.zero_grad(set_to_none=True)
        images = parametrization()
        objective = gate_objective(sae, features, recognizer(jittered(images, generators, largest=jitter)))
        if not torch.isfinite(objective).all():
            raise UserError(f"The objective is not finite at step {step}; lower lr (now {lr}).")
        if step % record_every == 0 or step == 1:
            records.append(_record(step - 1, images.detach(), features, recognizer, sae))
        objective.sum().neg().backward()
        optimizer.step()
    with torch.no_grad():
        images = parametrization()
    records.append(_record(steps, images, features, recognizer, sae))
    if not np.isfinite(records[-1].objective).all():
        raise UserError(f"The objective is not finite after step {steps}; lower lr (now {lr}).")
    return images, records


@torch.no_grad()
def _record(
    step: int,
    images: Float[Tensor, "n 3 h w"],
    features: Int64[Tensor, " n"],
    recognizer: nn.Module,
    sae: SparseAutoencoder,
) -> Record:
    templates = recognizer(images)
    return Record(
        step=step,
        objective=gate_objective(sae, features, templates).cpu().numpy(),
        activation=sae.encode(templates).gather(1, features[:, None])[:, 0].cpu().numpy(),
        norm=templates.norm(dim=1).cpu().numpy(),
    )
