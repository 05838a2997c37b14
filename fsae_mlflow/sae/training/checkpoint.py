"""The state of an unfinished training on disk, from which the same command goes on."""

import logging
from pathlib import Path
from typing import Any

import torch

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.parameters import deciding, fingerprint
from fsae_mlflow.sae.training.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
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
    """The fingerprint that version 0.1 gave the same training."""
    values = {name: value for name, value in deciding(settings).items() if name not in ("k_aux", "initial_threshold")}
    if values.get("decoder_norm") == FORMER_DECODER_NORM.get(values["variant"]):
        values.pop("decoder_norm", None)
    return fingerprint({**FORMER_FIELDS, **values, "digest": digest})


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state beside the former checkpoint in `folder`, then rename it.

    Raises: OSError when it cannot be written, for example on a full disk; the former checkpoint is intact then.
    """
    try:
        with atomic_write(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"The checkpoint could not be written to {folder} ({error}); "
            "free space there. The checkpoint before it is intact."
        ) from error


def load_checkpoint(folder: Path, settings: TrainSettings, digest: str) -> dict[str, Any] | None:
    """The state saved in `folder` by the same training; None where there is none.

    Raises: ValueError for a damaged file.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged; remove it to train from the start.") from error
    if state["fingerprint"] not in (training_fingerprint(settings, digest), former_fingerprint(settings, digest)):
        logger.warning("%s belongs to another training (other settings or templates); training from the start.", path)
        return None
    return state
