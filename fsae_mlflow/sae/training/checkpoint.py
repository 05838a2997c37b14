"""The state of an unfinished training on disk, from which the same command goes on."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.sae.training.settings import TrainSettings

CHECKPOINT = "checkpoint.pt"
# What may differ between the interrupted and the resuming command.
FREE = ("templates", "preset", "output", "register", "model_name", "device", "checkpoint_seconds", "max_gigabytes")

logger = logging.getLogger(__name__)


def fingerprint(settings: TrainSettings, digest: str) -> str:
    """A short hash of all that decides the result: the settings and the templates' content."""
    deciding = {name: value for name, value in dataclasses.asdict(settings).items() if name not in FREE}
    return hashlib.sha256(json.dumps({**deciding, "digest": digest}, sort_keys=True).encode()).hexdigest()[:12]


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the state beside the former checkpoint in `folder`, then in its place.

    Raises: OSError when it cannot be written, a full disk say; the former checkpoint is intact then.
    """
    try:
        with atomic_write(folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"The checkpoint could not be written to {folder} ({error}); "
            "free space there. The checkpoint before it is intact."
        ) from error


def load_checkpoint(folder: Path, name: str) -> dict[str, Any] | None:
    """The state saved in `folder` by a training of the same fingerprint; None where there is none.

    Raises: ValueError for a damaged file.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged; remove it to train from the start.") from error
    if state["fingerprint"] != name:
        logger.warning("%s belongs to another training (other settings or templates); training from the start.", path)
        return None
    return state
