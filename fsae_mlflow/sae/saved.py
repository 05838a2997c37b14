"""A trained SAE on disk: a folder with sae.safetensors (weights, scale, density) and config.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import VARIANTS

WEIGHTS = "sae.safetensors"
CONFIG = "config.json"
FILES = (WEIGHTS, CONFIG)


def save_sae(sae: SparseAutoencoder, folder: Path, *, settings: dict[str, Any], templates: dict[str, Any]) -> None:
    """Write the SAE with the settings it was trained by and the metadata of the template set it was trained on.

    config.json comes last: without it the folder holds no finished SAE. Other files in the folder stay.
    """
    config = {
        "variant": sae.variant,
        "hyperparameters": sae.hyperparameters,
        "settings": settings,
        "templates": templates,
    }
    (folder / CONFIG).unlink(missing_ok=True)
    with atomic_write(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous().cpu() for name, tensor in sae.state_dict().items()}, temporary)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2))


def load_sae(folder: Path | str) -> SparseAutoencoder:
    """The SAE saved in `folder`, on the CPU and in eval mode.

    Raises: ValueError where the folder holds no complete SAE or one of an unknown variant.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config["variant"] not in VARIANTS:
        raise ValueError(
            f"sae: {folder / CONFIG} names the variant {config['variant']!r}; known are {', '.join(VARIANTS)}."
        )
    sae = VARIANTS[config["variant"]](**config["hyperparameters"])
    try:
        sae.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"sae: {folder / WEIGHTS} is missing, damaged or of another shape; train the SAE again."
        ) from error
    return sae.eval().requires_grad_(False)


def read_config(folder: Path | str) -> dict[str, Any]:
    """The config.json of a saved SAE: variant, hyperparameters, training settings, template set.

    Raises: ValueError where there is none.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ValueError(f"sae: {folder} holds no trained SAE (no {CONFIG}); make one with the train_sae entry point.")
    return json.loads(path.read_text())


def digest(folder: Path | str) -> str:
    """A short hash of a saved SAE's weights: equal SAEs have equal digests."""
    with (Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
