"""The recognizer that comes with the package: a small student made by train_recognizer, for demos and tests."""

from pathlib import Path

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.student import load_student

WEIGHTS = Path(__file__).with_name("weights") / "tiny.safetensors"


def load_tiny(argument: str, card: RecognizerCard | None) -> Recognizer:
    """The student in this package with its card.

    Raises: ValueError for an argument or a card: this recognizer takes neither.
    """
    if argument or card:
        raise ValueError(f"recognizer tiny takes no argument and no card of yours; it got {argument or 'a card'}.")
    return load_student(str(WEIGHTS), RecognizerCard.from_json(WEIGHTS.with_suffix(".json")))
