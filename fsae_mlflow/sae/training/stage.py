"""Training of a sparse autoencoder on a template set."""

import logging
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.machine.memory import machine_memory, require_memory
from fsae_mlflow.machine.ranks import Ranks, connected_ranks
from fsae_mlflow.parameters import flat
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import CONFIG, add_to_config, finish_saving, load_sae, read_config, save_sae
from fsae_mlflow.sae.training.checkpoint import made_by, remove_checkpoints, training_fingerprint
from fsae_mlflow.sae.training.computed import computed_sae
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.interruption import deferred_interrupts
from fsae_mlflow.sae.training.loop import Fitted, OnDensities, optimized
from fsae_mlflow.sae.training.measures import measure
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.steps.sparsity import reached, steering_rows
from fsae_mlflow.templates.set import TemplateSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: the SAE, its folder and its final metrics, measured on all training and held-out templates.

    `epoch_kept` among the metrics is the epoch that the weights are of. Under torchrun the first rank alone saves and
    keeps the best epoch.
    """

    folder: Path
    sae: SparseAutoencoder
    metrics: dict[str, float]

    @property
    def headline(self) -> str:
        """How well and how sparsely the SAE describes templates, of held-out people if there are any."""
        side, people = ("heldout", "held-out") if "heldout/fvu" in self.metrics else ("train", "training")
        fvu, l0, alive = self.metrics[f"{side}/fvu"], self.metrics[f"{side}/l0"], self.metrics["train/alive"]
        return f"fvu {fvu:.3g} and L0 {l0:.3g} on {people} people; {100 * alive:.0f} % of the features are alive"


def train(
    settings: TrainSettings,
    *,
    templates: TemplateSet,
    output: Path,
    on_metrics: OnMetrics,
    on_densities: OnDensities | None = None,
    label: str = "train_sae",
) -> Trained:
    """Train an SAE on `templates` and save it in the folder `output`.

    After every epoch `on_metrics` gets, with the epoch as step: the mean training loss by term, the learning rate, the
    templates per second; and on training and held-out templates (an eighth of them, at least 1,024 and at most 10,000,
    evenly spaced) the loss terms, l0, fvu, cosine and alive share; `on_densities` gets the densities on the training
    templates among them. A training that was stopped goes
    on from its last checkpoint in `output`, and ends with the weights that it would have had without the stop. One that
    has finished there is not repeated. An SAE of another training stays there until the new one is complete. Under
    torchrun every rank holds a slice of the features.

    Where λ is found (target_l0), a tenth of the training people, with at most about 1,024 templates, steer it and are
    not trained on; `lam` is logged after every epoch, stands among the final metrics, and becomes the SAE's own.

    `label`: what the progress is shown as.

    Raises: UserError for an empty template set, when another process writes to `output`, and when the loss stops being
    finite; OSError when the SAE cannot be saved.
    """
    if len(templates) == 0:
        raise UserError(f"templates: {templates.folder} holds no template; see its failures.parquet for the reasons.")
    require_room(settings.expansion, templates)
    finish_saving(output)  # before what killed processes have left is removed
    with connected_ranks() as ranks, only_writer(output) if ranks.leads else nullcontext():
        device = choose_device(settings.device)
        held = holdout_rows(templates.identities, settings.holdout, seed=settings.seed)
        max_bytes = int(min(settings.max_gigabytes * 2**30, machine_memory()))
        steering = steering_rows(
            settings.variant, templates.identities, held, width=templates.width, seed=settings.seed
        )
        data = {
            "train": TrainingData(templates, ~held & ~steering, max_bytes),
            "heldout": TrainingData(templates, held, max_bytes),
        }
        steered = TrainingData(templates, steering, max_bytes)
        if finished := _finished(settings, data, output, ranks, device):
            return finished
        if settings.variant.directions:
            sae = computed_sae(settings, data["train"], steered).to(device)
            fitted = Fitted(sae=sae, kept="run the command again")
        else:
            fitted = optimized(settings, data, steered, output, on_metrics, on_densities, ranks, device, label)
        return _saved(settings, fitted, data, output, ranks)


def _finished(
    settings: TrainSettings, data: dict[str, TrainingData], output: Path, ranks: Ranks, device: torch.device
) -> Trained | None:
    """The same training's result, where it stands in `output`."""
    digest = data["train"].templates.digest
    if not (output / CONFIG).is_file():
        return None
    try:
        config = read_config(output)
        if not made_by(config, settings, digest):
            logger.warning("%s holds the SAE of another training; it stays until the new one is complete.", output)
            return None
        sae = load_sae(output)
    except (ValueError, KeyError) as error:
        logger.warning("%s It is trained again.", error)
        return None
    logger.info("train_sae: %s is finished already; remove the folder to train again.", output)
    if "metrics" not in config:  # Version 0.1 did not store them.
        config["metrics"] = _final_metrics(sae.to(device), data, {})[0]
        if settings.keep == "last":
            config["metrics"]["epoch_kept"] = float(settings.epochs)
        sae.cpu()
        if ranks.leads:
            known = {"fingerprint": training_fingerprint(settings, digest), "metrics": config["metrics"]}
            add_to_config(output, known)
    if ranks.leads:
        remove_checkpoints(output)
    return Trained(folder=output, sae=sae, metrics=config["metrics"])


def _saved(
    settings: TrainSettings, fitted: Fitted, data: dict[str, TrainingData], output: Path, ranks: Ranks
) -> Trained:
    """The SAE, measured on all templates and saved."""
    templates, sae = data["train"].templates, fitted.sae
    final, density = _final_metrics(sae, data, fitted.samples)
    if not math.isfinite(final["train/loss_total"]):
        raise UserError(f"The loss is not finite after the last step; lower lr ({settings.lr}) or check the templates.")
    final |= fitted.metrics
    l0, target = final.get("heldout/l0", final["train/l0"]), settings.variant.l0_to_reach(templates.width)
    if ranks.leads and target is not None and not reached(l0, target):
        advice = (
            "take more templates or a smaller expansion"
            if settings.variant.directions
            else "take more steps (epochs, smaller batches), and where the two differ much, more templates, mixup=1 or "
            "a smaller expansion"
        )
        logger.warning(
            "L0 is %.1f (%.1f on training people) and not target_l0 %g; %s.", l0, final["train/l0"], target, advice
        )
    sae.density.copy_(torch.from_numpy(density))
    sae.cpu().eval().requires_grad_(False)
    sae.origin = templates.origin
    if ranks.leads:
        known = {"fingerprint": training_fingerprint(settings, templates.digest), "metrics": final}
        metadata = {"digest": templates.digest, **templates.metadata}
        try:
            with deferred_interrupts():
                save_sae(sae, output, settings=flat(settings), templates=metadata, training=known)
                remove_checkpoints(output)
        except OSError as error:
            raise OSError(
                f"The SAE could not be saved in {output} ({error}); free space there: {fitted.kept}."
            ) from error
    return Trained(folder=output, sae=sae, metrics=final)


def _final_metrics(
    sae: SparseAutoencoder, data: dict[str, TrainingData], samples: dict[str, Tensor]
) -> tuple[dict[str, float], Float64[np.ndarray, " d_sae"]]:
    """The metrics on all templates of both sides, and the training side's densities.

    A side with a sample of scaled templates is measured by the entries that fire alone.
    """
    found = {}
    for name, side in data.items():
        if len(side):
            batches = progress(side.in_order(), total=len(side), label=f"measure {name}", unit="templates", size=len)
            scaled = (sae.scaled(batch.to(sae.W_dec.device)) for batch in batches)
            found[name] = measure(sae, scaled, sample=samples.get(name))
    metrics = {key: value for name, measures in found.items() for key, value in measures.metrics(name).items()}
    return metrics, found["train"].sparsity.density


def trained_on(folder: Path, templates: TemplateSet) -> Bool[np.ndarray, " n_rows"] | None:
    """Which rows of a template set the SAE in `folder` was trained on (λ too, where it was found); None where it was
    trained on another set.
    """
    config = read_config(folder)
    if config.get("templates", {}).get("digest") != templates.digest:
        return None
    made_with = config.get("settings", {})
    return ~holdout_rows(templates.identities, made_with["holdout"], seed=made_with["seed"])


def require_room(expansion: int, templates: TemplateSet) -> None:
    """Refuse an SAE that cannot be trained on this machine: both weight matrices, each with two moments.

    Raises: UserError naming the expansion and the memory that it needs.
    """
    n_bytes = 2 * 3 * 4 * expansion * templates.width**2
    require_memory(n_bytes, f"expansion={expansion} of d_in {templates.width}", "use a smaller expansion")
