"""Training of a sparse autoencoder on a template set."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fsae_mlflow.compute import choose_device
from fsae_mlflow.errors import UserError
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.memory import machine_memory, require_memory
from fsae_mlflow.parameters import flat
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.ranks import Ranks, connected_ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import CONFIG, save_sae
from fsae_mlflow.sae.training.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint, training_fingerprint
from fsae_mlflow.sae.training.data import TrainingData, fit_scaling
from fsae_mlflow.sae.training.interruption import Interrupts, deferred_interrupts
from fsae_mlflow.sae.training.measures import Measures, measure
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.trainer import Trainer
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.templates.set import TemplateSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: the SAE and its folder, its measures on training and held-out templates, and the epoch that
    its weights are of. Under torchrun the first rank alone saves and keeps the best epoch.
    """

    folder: Path
    sae: SparseAutoencoder
    train: Measures
    heldout: Measures | None
    epoch: int
    templates_per_second: float

    @property
    def metrics(self) -> dict[str, float]:
        """The final metrics by name."""
        heldout = self.heldout.metrics("heldout") if self.heldout else {}
        others = {"epoch_kept": float(self.epoch), "templates_per_second": self.templates_per_second}
        return self.train.metrics("train") | heldout | others


def train(settings: TrainSettings, *, templates: TemplateSet, output: Path, on_metrics: OnMetrics) -> Trained:
    """Train an SAE on `templates` and save it in the folder `output`.

    After every epoch `on_metrics` gets, with the epoch as step: the mean training loss by term, the learning rate, the
    templates per second; and on training and held-out templates (an eighth of them, at least 1,024 and at most 10,000,
    evenly spaced) the loss terms, l0, sum of densities, fvu, cosine and alive share. A training that was stopped goes
    on from its last checkpoint in `output`, and ends with the weights that it would have had without the stop. Under
    torchrun every rank holds a slice of the features.

    Raises: UserError for an empty template set; and when the loss stops being finite.
    """
    if len(templates) == 0:
        raise UserError(f"templates: {templates.folder} holds no template; see its failures.parquet for the reasons.")
    with connected_ranks() as ranks:
        return _train(settings, templates, output, on_metrics, ranks)


def _train(
    settings: TrainSettings, templates: TemplateSet, output: Path, on_metrics: OnMetrics, ranks: Ranks
) -> Trained:
    device = choose_device(settings.device)
    require_room(settings, templates)
    held = holdout_rows(templates.identities, settings.holdout, seed=settings.seed)
    max_bytes = int(min(settings.max_gigabytes * 2**30, machine_memory()))
    train_data, held_data = TrainingData(templates, ~held, max_bytes), TrainingData(templates, held, max_bytes)

    sae = new_sae(settings, train_data)
    trainer = Trainer(settings, sae.to(device), train_data, ranks)
    checkpoints = _Checkpoints(trainer, output, templates.digest)
    # A finished SAE that stands here is another training's, or is to be made again.
    (output / CONFIG).unlink(missing_ok=True)
    checkpoints.resume()
    sae = trainer.whole()
    samples = {
        name: sae.scaled(data.sample(_n_measured(data)).to(device))
        for name, data in (("train", train_data), ("heldout", held_data))
    }
    if checkpoints.keeps_best and trainer.step and trainer.step % trainer.batches_per_epoch == 0:
        # The former process may have stopped after an epoch's last step, before measuring it.
        checkpoints.after_epoch(sae, measure(sae, samples["heldout"]).metrics("heldout"))
    epochs = range(trainer.epoch, settings.epochs)
    try:
        for _ in progress(epochs, total=len(epochs), label="train_sae", unit="epochs"):
            with deferred_interrupts() as interrupts:
                metrics = trainer.run_epoch(lambda: checkpoints.after_step(interrupts))
            sae = trainer.whole()
            if ranks.leads:
                for name, sample in samples.items():
                    if len(sample):
                        metrics |= measure(sae, sample).metrics(name)
                checkpoints.after_epoch(sae, metrics)
                on_metrics(metrics, trainer.epoch)
    except KeyboardInterrupt:
        # Interrupts act between steps only, so this state is whole. Several ranks have saved together already, when
        # they agreed to stop.
        if ranks.alone:
            with deferred_interrupts():
                checkpoints.save()
        logger.info("Stopped at step %d of %d; the same command goes on from there.", trainer.step, trainer.n_steps)
        raise

    sae = trainer.whole()
    if checkpoints.best:
        sae.load_state_dict(checkpoints.best["weights"])
    final = measure(sae, (sae.scaled(batch.to(device)) for batch in train_data.in_order()))
    if not math.isfinite(final.losses["total"]):
        raise UserError(f"The loss is not finite after the last step; lower lr ({settings.lr}) or check the templates.")
    sae.density.copy_(torch.from_numpy(final.sparsity.density))
    heldout = measure(sae, (sae.scaled(batch.to(device)) for batch in held_data.in_order())) if len(held_data) else None
    sae.cpu().eval().requires_grad_(False)
    if ranks.leads:
        metadata = {"digest": templates.digest, **templates.metadata}
        save_sae(sae, output, settings=flat(settings), templates=metadata)
        (output / CHECKPOINT).unlink(missing_ok=True)
    return Trained(
        folder=output,
        sae=sae,
        train=final,
        heldout=heldout,
        epoch=checkpoints.best["epoch"] if checkpoints.best else trainer.epoch,
        templates_per_second=trainer.templates_per_second,
    )


def require_room(settings: TrainSettings, templates: TemplateSet) -> None:
    """Refuse an SAE that cannot be trained on this machine: both weight matrices, each with two moments.

    Raises: UserError naming the expansion and the memory that it needs.
    """
    n_bytes = 2 * 3 * 4 * settings.expansion * templates.width**2
    require_memory(n_bytes, f"expansion={settings.expansion} of d_in {templates.width}", "use a smaller expansion")


def new_sae(settings: TrainSettings, data: TrainingData) -> SparseAutoencoder:
    """The SAE that a training starts with: seeded, and scaled to the training rows."""
    torch.manual_seed(settings.seed)
    width = data.templates.width
    sae = untrained(settings.variant, width, settings.expansion * width, normalize=settings.normalize)
    fit_scaling(sae, data, center=settings.center)
    return sae


class _Checkpoints:
    """A training's checkpoints in its output folder, until the finished SAE stands there.

    `best` holds the epoch of least held-out loss with its weights, where that epoch is to be kept.
    """

    def __init__(self, trainer: Trainer, folder: Path, digest: str) -> None:
        self.trainer = trainer
        self.folder = folder
        self.digest = digest
        self.saved_at = time.monotonic()
        self.best: dict[str, Any] | None = None

    def resume(self) -> None:
        state = load_checkpoint(self.folder, self.trainer.settings, self.digest)
        if state is not None:
            self.trainer.load_state(state)
            self.best = state["best"] if self.keeps_best else None
            logger.info("Going on from the checkpoint at step %d of %d.", self.trainer.step, self.trainer.n_steps)

    @property
    def keeps_best(self) -> bool:
        """Whether this process looks for the best epoch."""
        return self.trainer.settings.keep == "best" and self.trainer.ranks.leads

    def after_epoch(self, sae: SparseAutoencoder, metrics: dict[str, float]) -> None:
        if not self.keeps_best:
            return
        # Where features compete, the loss is that of a competition within the batch, which ends with the training.
        loss = metrics["heldout/loss_total" if sae.competition is None else "heldout/mse"]
        if self.best is None or loss < self.best["loss"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in sae.state_dict().items()}
            self.best = {"epoch": self.trainer.epoch, "loss": loss, "weights": weights}

    def after_step(self, interrupts: Interrupts) -> None:
        ranks = self.trainer.ranks
        due = time.monotonic() - self.saved_at >= self.trainer.settings.checkpoint_seconds
        due, stop = ranks.any(due, bool(interrupts.pending))
        if due or (stop and not ranks.alone):
            try:
                self.save()
            except OSError as error:
                # The training itself may still end well.
                logger.warning("%s", error)
        if stop:
            interrupts.act()

    def save(self) -> None:
        state = self.trainer.state()
        if self.trainer.ranks.leads:
            name = training_fingerprint(self.trainer.settings, self.digest)
            save_checkpoint(self.folder, {"fingerprint": name, "best": self.best, **state})
        self.saved_at = time.monotonic()


def _n_measured(data: TrainingData) -> int:
    return min(max(len(data) // 8, 1024), 10_000)
