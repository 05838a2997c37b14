"""The state of an unfinished training on disk, from which the same command goes on."""

import logging
import math
import time
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch

from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.parameters import deciding, fingerprint
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.interruption import Interrupts
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.steps.sparsity import reached
from fsae_mlflow.sae.training.steps.trainer import Trainer

CHECKPOINT = "checkpoint.pt"
FORMER_CHECKPOINT = "checkpoint-former.pt"
SECONDS_TO_THE_FIRST = 30.0
# Version 0.1 had one settings class for all variants; these were its variants' fields.
FORMER_FIELDS: dict[str, Any] = {
    "lam": 0.1,
    "lam_warmup": 0,
    "k": 32,
    "aux_weight": 1 / 32,
    "dead_after": 1.0,
    "n_prefixes": 4,
    "bandwidth": 0.01,
    "decoder_norm": "default",
    "resample_every": 10,
    "resample_until": 0.75,
}
FORMER_DECODER_NORM = {"gated": "held", "relu": "weighted"}

logger = logging.getLogger(__name__)


def training_fingerprint(settings: TrainSettings, digest: str) -> str:
    """A short hash of what decides the result: the settings, and the templates by their digest."""
    return fingerprint({**deciding(settings), "digest": digest})


def former_fingerprint(settings: TrainSettings, digest: str) -> str:
    """The fingerprint that version 0.1 gave the same training; "" where that version could not do it."""
    values = deciding(settings)
    if values.pop("k_aux", None) is not None or values.pop("initial_threshold", 0.01) != 0.01:
        return ""
    if values.pop("whiten", 0) or values.pop("init", "random") != "random":
        return ""
    if values.pop("target_l0", None) is not None or values.get("lam", 0.0) is None:
        return ""
    if values.get("decoder_norm") == FORMER_DECODER_NORM.get(values["variant"]):
        values.pop("decoder_norm", None)
    return fingerprint({**FORMER_FIELDS, **values, "digest": digest})


def made_by(config: dict[str, Any], settings: TrainSettings, digest: str) -> bool:
    """Whether the config.json of a saved SAE names this training; that of a former version has no fingerprint."""
    if "fingerprint" in config:
        return config["fingerprint"] == training_fingerprint(settings, digest)
    former = deciding(TrainSettings(variant=type(settings.variant)())) | config["settings"]
    if former.get("decoder_norm") == "default":
        former["decoder_norm"] = FORMER_DECODER_NORM.get(former["variant"], "default")
    same = all(former[name] == value for name, value in deciding(settings).items())
    return same and config["templates"].get("digest") == digest


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state to `folder`; the checkpoint that stood there becomes the former one.

    Raises: OSError when it cannot be written, for example on a full disk; what stood there is intact then.
    """
    path = folder / CHECKPOINT
    try:
        with atomic_write(path) as temporary:
            torch.save(state, temporary)
            if path.is_file():
                path.replace(folder / FORMER_CHECKPOINT)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"The checkpoint could not be written to {folder} ({error}); "
            "free space there. The checkpoint before it is intact."
        ) from error


def load_checkpoint(
    folder: Path, names: Collection[str], require_own: Callable[[dict[str, Any]], None]
) -> dict[str, Any] | None:
    """The newest state in `folder` that is whole and has a fingerprint among `names`; None where there is none.

    `require_own(state)` raises an exception for a state that cannot be the training's. A file with such a state, or a
    damaged one, is renamed to NAME.damaged, with a warning.
    """
    for path in (folder / CHECKPOINT, folder / FORMER_CHECKPOINT):
        if not path.is_file():
            continue
        with path.open("rb") as file:  # Raises where the file is whole and may not be read.
            file.read(1)
        try:
            state = _read(path)
            if state["fingerprint"] not in names:
                logger.warning("%s belongs to another training (other settings or templates) and is not used.", path)
                continue
            require_own(state)
        # A damaged file can raise anything: it is damaged by definition, and it is kept.
        except Exception as error:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            reason = f"{type(error).__name__}: {error}"
            logger.warning("%s is damaged (%s); it is set aside as %s and not used.", path, reason, aside.name)
            continue
        return state
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove what a finished training no longer needs."""
    for name in (CHECKPOINT, FORMER_CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    # torch writes a CRC-32 of each record of the archive, and does not compare it when it loads.
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"the checksum of its record {damaged} differs")
    return torch.load(path, map_location="cpu", weights_only=True)


class Checkpoints:
    """A training's checkpoints in its output folder, until the finished SAE stands there.

    `best` holds the epoch of least held-out loss with its weights, where that epoch is to be kept. Where λ is found,
    losses of different epochs have different λ: the best is that of least held-out mse among those whose held-out L0
    is within 5 % of the target, and where there is none, the last is kept.
    """

    def __init__(self, trainer: Trainer, folder: Path, digest: str) -> None:
        self.trainer = trainer
        self.folder = folder
        self.digest = digest
        self.best: dict[str, Any] | None = None
        self.saved_at = time.monotonic()
        self.saved_step: int | None = None
        self.seconds = min(SECONDS_TO_THE_FIRST, trainer.settings.checkpoint_seconds)

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, where there is one."""
        ranks = self.trainer.ranks
        state = self._load() if ranks.leads else None
        ranks.any(True)  # The first rank sets damaged files aside before the others look.
        state = state if ranks.leads else self._load()
        if state is not None:
            self.trainer.load_state(state)
            self.best = state["best"] if self.keeps_best else None
            self.saved_step = self.trainer.step
            logger.info("Going on from the checkpoint at step %d of %d.", self.trainer.step, self.trainer.n_steps)

    def _load(self) -> dict[str, Any] | None:
        settings = self.trainer.settings
        names = [name(settings, self.digest) for name in (training_fingerprint, former_fingerprint)]
        return load_checkpoint(self.folder, names, self._require_own)

    def _require_own(self, state: dict[str, Any]) -> None:
        self.trainer.require_own(state)
        best = state["best"]
        if self.trainer.settings.keep == "best" and best is not None:
            self.trainer.require_own_weights(best["weights"])
            self.trainer.sparsity.require_own(best.get("sparsity", {}))
            if not (1 <= best["epoch"] <= self.trainer.settings.epochs and math.isfinite(best["loss"])):
                raise ValueError("its best epoch is outside of the training")

    @property
    def keeps_best(self) -> bool:
        """Whether this process looks for the best epoch."""
        return self.trainer.settings.keep == "best" and self.trainer.ranks.leads

    def after_epoch(self, sae: SparseAutoencoder, metrics: dict[str, float]) -> None:
        if not self.keeps_best:
            return
        sparsity = self.trainer.sparsity
        if sparsity.target is not None and not reached(metrics["heldout/l0"], sparsity.target):
            return
        # An SAE whose features compete is used whole: a Matryoshka SAE's prefixes do not choose.
        by_total = sae.competition is None and sparsity.target is None
        loss = metrics["heldout/loss_total" if by_total else "heldout/mse"]
        if self.best is None or loss < self.best["loss"]:
            weights = {name: tensor.detach().cpu().clone() for name, tensor in sae.state_dict().items()}
            known = {"epoch": self.trainer.epoch, "loss": loss, "sparsity": sparsity.state()}
            self.best = {**known, "weights": weights}

    def after_step(self, interrupts: Interrupts) -> None:
        """Save where it is time: within the first minute, every `checkpoint_seconds`, and after the last step."""
        ranks = self.trainer.ranks
        due = time.monotonic() - self.saved_at >= self.seconds or self.trainer.step == self.trainer.n_steps
        due, stop = ranks.any(due, bool(interrupts.pending))
        if due or (stop and not ranks.alone):
            self.save()
        if stop:
            interrupts.act()

    def save(self) -> None:
        """Write a checkpoint; a full disk is a warning, because the training itself may still end well."""
        state = self.trainer.state()
        if self.trainer.ranks.leads:
            name = training_fingerprint(self.trainer.settings, self.digest)
            try:
                save_checkpoint(self.folder, {"fingerprint": name, "best": self.best, **state})
                self.saved_step = self.trainer.step
            except OSError as error:
                logger.warning("%s", error)
        self.saved_at, self.seconds = time.monotonic(), self.trainer.settings.checkpoint_seconds

    @property
    def kept(self) -> str:
        """What the same command finds, in words."""
        if self.saved_step is None:
            return "no checkpoint was saved, so the same command starts from the beginning"
        if self.saved_step == self.trainer.n_steps:
            return "all steps are kept, and the same command measures and saves the SAE"
        if self.saved_step == self.trainer.step:
            return "the same command goes on from there"
        return f"the steps up to {self.saved_step} are kept, and the same command goes on from there"
