"""The recognizers by name: one line each."""

from collections.abc import Callable
from pathlib import Path

from fsae_mlflow.errors import UserError
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.facenet import load_facenet
from fsae_mlflow.recognizers.onnx_model import load_onnx
from fsae_mlflow.recognizers.student import load_student
from fsae_mlflow.recognizers.swinface import load_swinface
from fsae_mlflow.recognizers.timm_model import load_timm
from fsae_mlflow.recognizers.tiny import load_tiny

FAMILIES: dict[str, tuple[str, Callable[[str, RecognizerCard | None], Recognizer]]] = {
    "tiny": ("tiny", load_tiny),
    "onnx": ("onnx:/path/model.onnx", load_onnx),
    "facenet": ("facenet[:vggface2|casia-webface|/path.pt]", load_facenet),
    "swinface": ("swinface:/path/checkpoint.pt", load_swinface),
    "timm": ("timm:NAME[@/path/weights.safetensors]", load_timm),
    "student": ("student:/path/student.safetensors", load_student),
}
"""By family: how a user writes it, and its loader. A family written `family:…` needs an argument; others do not."""


def load_recognizer(name: str, *, card: str = "", parameter: str = "recognizer") -> Recognizer:
    """The recognizer called `name` (FAMILY or FAMILY:ARGUMENT), in evaluation mode, on the CPU.

    Its card is the JSON file `card`; without one, the file `model.json` beside the weights `model.onnx`; without that,
    the family's own. Errors about the name say which `parameter` has it.

    Raises: UserError for an unknown family (naming the known ones) and for weights or cards that cannot be used.
    """
    family, _, argument = name.partition(":")
    if family not in FAMILIES:
        known = ", ".join(pattern for pattern, _ in FAMILIES.values())
        raise UserError(f"{parameter} must be one of {known}; it is {name!r}.")
    pattern, load = FAMILIES[family]
    if not argument and pattern.startswith(f"{family}:"):
        raise UserError(f"{parameter} {name!r} needs an argument: write {pattern}.")
    return load(argument, _card(argument, card))


def _card(argument: str, card: str) -> RecognizerCard | None:
    """The card that the user gave, or that lies beside the weights: the argument, or what follows its first @."""
    if card:
        return RecognizerCard.from_json(Path(card))
    for weights in map(Path, (argument, argument.partition("@")[2])):
        if weights.is_file() and (sidecar := weights.with_suffix(".json")).is_file():
            return RecognizerCard.from_json(sidecar)
    return None
