"""A finished SAE on disk: a folder with sae.safetensors (weights, scale, density) and config.json."""

import dataclasses
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write, left_behind
from fsae_mlflow.files.documents import check_fields, read_object, read_tensors, sha256
from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import VARIANT, VARIANTS, untrained

WEIGHTS = "sae.safetensors"
CONFIG = "config.json"
FILES = (WEIGHTS, CONFIG)
WEIGHTS_DIGEST = "weights_digest"
REMEDY = "restore the folder from a copy or its MLflow run, or train the SAE again"


def save_sae(
    sae: SparseAutoencoder,
    folder: Path,
    *,
    settings: dict[str, Any],
    templates: dict[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write the SAE with the settings of its training and the metadata of its template set.

    `training` is what else is known of the training: its fingerprint and final metrics. Both files are written beside
    and renamed, config.json last; it holds the weights' digest, by which `finish_saving` ends what a killed process
    had half renamed. Other files in the folder stay.

    Raises: OSError when they cannot be written, for example on a full disk; an SAE that stood there is intact then.
    """
    config = {
        "variant": VARIANT.name_of(sae.settings),
        "hyperparameters": sae.hyperparameters,
        "settings": settings,
        "templates": templates,
        **(training or {}),
    }
    with atomic_write(folder / CONFIG) as config_file, atomic_write(folder / WEIGHTS) as weights_file:
        try:
            save_file({name: tensor.contiguous().cpu() for name, tensor in sae.state_dict().items()}, weights_file)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        config_file.write_text(json.dumps({**config, WEIGHTS_DIGEST: sha256(weights_file)[:16]}, indent=2))


def add_to_config(folder: Path, values: Mapping[str, Any]) -> None:
    """Add values to the config.json of a saved SAE."""
    config = {**read_config(folder), **values}
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(config, indent=2))


def load_sae(folder: Path | str) -> SparseAutoencoder:
    """The SAE saved in `folder`, on the CPU and in evaluation mode.

    Raises: UserError naming the file where the folder holds no complete SAE, one of an unknown variant, or weights that
    do not fit config.json or are not finite.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config["variant"] not in VARIANTS:
        raise UserError(
            f"sae: {folder / CONFIG} names the variant {config['variant']!r}; known are {', '.join(VARIANTS)}."
        )
    kind, values = VARIANTS[config["variant"]], config["hyperparameters"]
    # An SAE of version 0.1 also stores values that its variant does not use.
    own = {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}  # pyright: ignore[reportArgumentType]
    weights, _ = read_tensors(folder / WEIGHTS, "sae:", remedy=REMEDY)
    shape = (values["d_sae"], values["d_in"])
    try:
        # Before an SAE is made: config.json may name any size.
        if "W_enc" not in weights or weights["W_enc"].shape != shape:
            raise RuntimeError(f"W_enc must be {shape[0]} x {shape[1]}")
        sae = untrained(kind(**own), values["d_in"], values["d_sae"], normalize=values["normalize"])
        sae.load_state_dict(weights)
    except UserError as error:
        raise UserError(f"sae: {folder / CONFIG} does not describe an SAE ({error}); {REMEDY}.") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"sae: {folder / WEIGHTS} has other tensors or shapes than {CONFIG} says ({reason}); {REMEDY}."
        ) from error
    if strange := [name for name, tensor in sae.state_dict().items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"sae: {folder / WEIGHTS} holds NaN or infinite values in {', '.join(strange)}; {REMEDY}.")
    # SAEs of version 0.1 have no digest.
    if WEIGHTS_DIGEST in config and config[WEIGHTS_DIGEST] != digest(folder):
        raise UserError(
            f"sae: {folder / WEIGHTS} is not the file that {CONFIG} beside it was written for: it is damaged, or was "
            "replaced; run the train_sae command that made it again."
        )
    sae.origin = Origin.of(f"sae: {folder}", config["templates"].get("recognizer"))
    return sae.eval().requires_grad_(False)


def read_config(folder: Path | str) -> dict[str, Any]:
    """The config.json of a saved SAE: variant, hyperparameters, training settings, template set.

    Raises: UserError where there is none, and naming the field where one is missing or of another type.
    """
    path = Path(folder) / CONFIG
    finish_saving(path.parent)
    if not path.is_file():
        raise UserError(f"sae: {folder} holds no trained SAE (no {CONFIG}); make one with the train_sae entry point.")
    fields = {"variant": str, "hyperparameters": dict, "settings": dict, "templates": dict}
    config = read_object(path, "sae:", remedy=REMEDY, fields=fields)
    shape = {"d_in": int, "d_sae": int, "normalize": bool}
    check_fields(config["hyperparameters"], f"sae: hyperparameters in {path}", shape, remedy=REMEDY)
    return config


def finish_saving(folder: Path) -> None:
    """Put the config.json in place whose weights are there already: its process was killed between the two."""
    for complete in left_behind(folder / CONFIG):
        with suppress(ValueError, KeyError, OSError):  # half written, or weights that are not there yet
            if json.loads(complete.read_text())[WEIGHTS_DIGEST] == digest(folder):
                complete.replace(folder / CONFIG)


def digest(folder: Path | str) -> str:
    """A short hash of a saved SAE's weights: equal SAEs have equal digests."""
    return sha256(Path(folder) / WEIGHTS)[:16]
