"""The epochs of a training, from its last checkpoint on."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.checkpoint import Checkpoints
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.interruption import deferred_interrupts
from fsae_mlflow.sae.training.measures import measure
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.sae.training.steps.trainer import Trainer

OnDensities = Callable[[Float64[np.ndarray, " d_sae"], int], None]
"""Gets the densities of all features on training templates after an epoch."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """An SAE that learns no more, what is known of it, and what is kept where it cannot be saved.

    With `samples`, scaled templates of each side, it is measured by the entries that fire alone.
    """

    sae: SparseAutoencoder
    metrics: dict[str, float] = field(default_factory=dict)
    samples: dict[str, Tensor] = field(default_factory=dict)
    kept: str


def optimized(
    settings: TrainSettings,
    data: dict[str, TrainingData],
    steering: TrainingData,
    output: Path,
    on_metrics: OnMetrics,
    on_densities: OnDensities | None,
    ranks: Ranks,
    device: torch.device,
    label: str,
) -> Fitted:
    """The SAE after all epochs, measured after each.

    Raises: UserError when the loss stops being finite; KeyboardInterrupt, after a checkpoint, when it is stopped.
    """
    space, sae = start(settings, data["train"])
    space = space.to(device)
    trainer = Trainer(settings, sae.to(device), data["train"], ranks, space=space, steering=steering)
    checkpoints = Checkpoints(trainer, output, data["train"].templates.digest)
    checkpoints.resume()
    whole = trainer.whole()
    sae = space.in_template_space(whole)
    samples = {name: sae.scaled(side.sample(_n_measured(side)).to(device)) for name, side in data.items()}
    # Where the fused step pays, so does measuring by the entries that fire alone.
    resembled = samples if trainer.is_fused else {}
    if checkpoints.keeps_best and trainer.step and trainer.step % trainer.batches_per_epoch == 0:
        # The former process may have stopped after an epoch's last step, before measuring it.
        found = measure(sae, samples["heldout"], sample=resembled.get("heldout"))
        checkpoints.after_epoch(whole, found.metrics("heldout"))
    total, left = trainer.n_steps, range(trainer.step, trainer.n_steps)
    steps = iter(progress(left, total=total, done=trainer.step, label=label, unit="steps") if ranks.leads else ())
    next(steps, None)

    def after_step() -> None:
        next(steps, None)
        checkpoints.after_step(interrupts)

    try:
        for _ in range(trainer.epoch, settings.epochs):
            with deferred_interrupts() as interrupts:
                metrics = trainer.run_epoch(after_step)
            whole = trainer.whole()
            if ranks.leads:
                sae = space.in_template_space(whole)
                for name, sample in samples.items():
                    if len(sample):
                        found = measure(sae, sample, sample=resembled.get(name))
                        metrics |= found.metrics(name)
                        if on_densities is not None and name == "train":
                            on_densities(found.sparsity.density, trainer.epoch)
                checkpoints.after_epoch(whole, metrics)
                on_metrics(metrics, trainer.epoch)
    except KeyboardInterrupt:
        # Interrupts act between steps only, so this state is whole. Several ranks have saved together already, when
        # they agreed to stop.
        if ranks.alone and checkpoints.saved_step != trainer.step:
            with deferred_interrupts():
                checkpoints.save()
        logger.info("Stopped at step %d of %d; %s.", trainer.step, total, checkpoints.kept)
        raise

    whole = trainer.whole()
    if checkpoints.best:
        whole.load_state_dict(checkpoints.best["weights"])
        trainer.sparsity.load_state(checkpoints.best.get("sparsity", {}))
        whole.settings = trainer.sparsity.variant
    known = {
        "epoch_kept": float(checkpoints.best["epoch"] if checkpoints.best else trainer.epoch),
        "templates_per_second": trainer.templates_per_second,
        **trainer.sparsity.metrics(),
    }
    sae = space.in_template_space(whole)
    return Fitted(sae=sae, metrics=known, samples=resembled, kept=checkpoints.kept)


def _n_measured(data: TrainingData) -> int:
    return min(max(len(data) // 8, 1024), 10_000)
