"""One string names any recognizer; a wrong one says what would be right."""

from pathlib import Path

import pytest
import torch

from fsae_mlflow.recognizers.registry import FAMILIES, load_recognizer
from tests.recognizers.networks import gradient_share


def test_tiny_gives_templates_and_gradients() -> None:
    recognizer = load_recognizer("tiny")
    assert recognizer(torch.rand(3, 3, 112, 112)).shape == (3, 512)
    assert recognizer.card.name == "tiny"
    assert gradient_share(recognizer) > 0.9


def test_tiny_takes_no_card(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(ValueError, match="tiny takes no argument and no card"):
        load_recognizer("tiny", card=str(tmp_path / "card.json"))
    with pytest.raises(ValueError, match="tiny takes no argument and no card of yours; it got x"):
        load_recognizer("tiny:x")


@pytest.mark.parametrize("name", ["", "arcface", "Tiny", "/models/a.onnx"])
def test_unknown_recognizer_lists_the_known(name: str) -> None:
    with pytest.raises(ValueError, match="recognizer must be one of tiny, ") as refusal:
        load_recognizer(name)
    assert all(pattern in str(refusal.value) for pattern, _ in FAMILIES.values())


@pytest.mark.parametrize("family", ["onnx", "swinface", "timm", "student"])
def test_family_without_its_argument_says_how_to_write_it(family: str) -> None:
    with pytest.raises(ValueError, match=f"needs an argument: write {family}:"):
        load_recognizer(family)


@pytest.mark.parametrize(
    "name",
    ["onnx:/no/a.onnx", "swinface:/no/a.pt", "student:/no/a.safetensors", "facenet:/no/a.pt", "timm:vit@/no/a.pt"],
)
def test_weights_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"(/no/a\.|vit cannot be created)"):
        load_recognizer(name)
