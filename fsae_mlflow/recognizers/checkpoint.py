"""Weights from files: reading never runs code, and loading is all or nothing."""

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.documents import read_tensors, sha256
from fsae_mlflow.recognizers.card import RecognizerCard

WRAPPERS = ("state_dict_backbone", "state_dict", "model", "model_state_dict")


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint file: safetensors, or torch's format read with weights_only=True (data, no code).

    Raises: UserError for a missing or unreadable file, and for a file that holds anything but tensors and plain
    values.
    """
    if not Path(path).is_file():
        raise UserError(f"Checkpoint {path} does not exist; give the path of a .safetensors, .pt or .pth file.")
    if path.endswith(".safetensors"):
        return dict(read_tensors(Path(path), "Checkpoint", remedy="give an intact file")[0])
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > Path(path).stat().st_size:  # torch does not compress, so that a small file needs little memory
                raise RuntimeError("it is compressed")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"Checkpoint {path} must hold tensors and plain values only, as it is read with weights_only=True; it is "
            "broken or holds code: save its state_dict as safetensors where you trust the file."
        ) from error
    except Exception as error:  # torch's reader raises errors of many kinds on damaged files
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"Checkpoint {path} is not a readable torch file ({reason}); give an intact file.") from error
    if not isinstance(content, Mapping):
        raise UserError(f"Checkpoint {path} must hold a dictionary of weights; it holds a {type(content).__name__}.")
    return dict(content)


def state_dict(content: dict[str, Any], path: str) -> dict[str, Tensor]:
    """The weights in a checkpoint's content, taken out of the usual wrapper (`state_dict`, `model`) if there is one.

    Raises: UserError where an entry is not a tensor.
    """
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = dict(content[wrapper])
    strange = [name for name, value in content.items() if not (isinstance(name, str) and _is_plain(value))]
    if strange or not content:
        found = f"these entries are not dense tensors: {_few(strange)}" if strange else "it is empty"
        raise UserError(f"Checkpoint {path} must hold tensors by name; {found}. Give the weights alone.")
    return content


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Load weights into a network that must have the same keys and shapes (see `check_exactly`)."""
    check_exactly(network, weights, path)
    network.load_state_dict(weights, strict=False)


def check_exactly(network: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Refuse weights with other keys or shapes than the network's; only batch-norm counters may be missing.

    Raises: UserError naming the keys that are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in wanted]
    reshaped = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if found := "; ".join(f"{word}: {_few(names)}" for word, names in wrong.items() if names):
        raise UserError(
            f"Checkpoint {path} does not fit {type(network).__name__} ({found}); give the weights of this architecture."
        )


def with_digest(card: RecognizerCard, weights: Path) -> RecognizerCard:
    """The card with the SHA-256 of the weights file filled in, so that every template set says which weights made it.

    Raises: UserError when the card has another digest.
    """
    digest = sha256(weights)
    if card.weights_sha256 and card.weights_sha256 != digest:
        raise UserError(
            f"Weights {weights} must have the SHA-256 of their card, {card.weights_sha256}; they have {digest}: "
            "download them again or correct the card."
        )
    return replace(card, weights_sha256=digest)


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor with numbers of its own: not sparse, nested, quantized, expanded or without data."""
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    if not plain or value.is_quantized or value.is_nested:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _few(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
