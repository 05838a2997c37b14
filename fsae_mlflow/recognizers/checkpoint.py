"""Weights from files: reading never runs code, and loading is all or nothing."""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fsae_mlflow.recognizers.card import RecognizerCard, sha256

WRAPPERS = ("state_dict", "model", "model_state_dict")


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint file: safetensors, or torch's format read with weights_only=True (data, no code).

    Raises: ValueError for a missing or unreadable file, and for a file that holds anything but tensors and plain
    values.
    """
    if not Path(path).is_file():
        raise ValueError(f"Checkpoint {path} does not exist; give the path of a .safetensors, .pt or .pth file.")
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"Checkpoint {path} is not a readable safetensors file ({error}).") from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Checkpoint {path} must hold tensors and plain values only, as it is read with weights_only=True; it is "
            "broken or holds code: save its state_dict as safetensors where you trust the file."
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"Checkpoint {path} is not a readable torch file ({str(error).splitlines()[0]}).") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"Checkpoint {path} must hold a dictionary of weights; it holds a {type(content).__name__}.")
    return dict(content)


def state_dict(content: dict[str, Any], path: str) -> dict[str, Tensor]:
    """The weights in a checkpoint's content, taken out of the usual wrapper (`state_dict`, `model`) if there is one.

    Raises: ValueError where an entry is not a tensor.
    """
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = dict(content[wrapper])
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strange or not content:
        found = f"these entries are not tensors: {_few(strange)}" if strange else "it is empty"
        raise ValueError(f"Checkpoint {path} must hold tensors by name; {found}.")
    return content


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Load weights into a network that must have the same keys and shapes; only batch-norm counters may be missing.

    Raises: ValueError naming the keys that are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in wanted]
    reshaped = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    if found := "; ".join(f"{word}: {_few(names)}" for word, names in wrong.items() if names):
        raise ValueError(
            f"Checkpoint {path} does not fit {type(network).__name__} ({found}); give the weights of this architecture."
        )
    network.load_state_dict(weights, strict=False)


def with_digest(card: RecognizerCard, weights: Path) -> RecognizerCard:
    """The card with the SHA-256 of the weights file filled in, so that every template set says which weights made it.

    Raises: ValueError when the card has another digest.
    """
    digest = sha256(weights)
    if card.weights_sha256 and card.weights_sha256 != digest:
        raise ValueError(
            f"Weights {weights} must have the SHA-256 of their card, {card.weights_sha256}; they have {digest}: "
            "download them again or correct the card."
        )
    return replace(card, weights_sha256=digest)


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
