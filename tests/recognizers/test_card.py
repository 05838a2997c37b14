"""The recognizer card: what it holds, and how a wrong one is refused."""

import json
from pathlib import Path

import pytest

from fsae_mlflow.recognizers.card import RecognizerCard, sha256


def test_card_survives_its_file(tmp_path: Path) -> None:
    card = RecognizerCard(name="a", channels="bgr", std=(128.0, 128.0, 128.0), lfw_accuracy={"mean": 0.99})
    card.write(tmp_path / "a.json")
    assert RecognizerCard.from_json(tmp_path / "a.json") == card


def test_left_out_fields_take_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    assert RecognizerCard.from_json(tmp_path / "mine.json") == RecognizerCard(name="mine")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable JSON"),
        ("[1]", "must hold one JSON object"),
        ('{"color": "rgb"}', "unknown fields color"),
        ('{"channels": "gbr"}', 'channels in the recognizer card .* must be "rgb" or "bgr"'),
        ('{"mean": [1, 2]}', "mean in the recognizer card .* must be three numbers"),
        ('{"std": [1, 0, 1]}', "std in the recognizer card .* must be three numbers above 0"),
        ('{"input_size": "112"}', "input_size in the recognizer card .* must be a whole number"),
        ('{"template_width": true}', "template_width in the recognizer card .* must be a whole number"),
        ('{"input_size": 0}', "input_size in the recognizer card .* at least 8"),
    ],
)
def test_wrong_card_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "card.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as refusal:
        RecognizerCard.from_json(path)
    assert str(path) in str(refusal.value)


def test_missing_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        RecognizerCard.from_json(tmp_path / "none.json")


def test_shipped_card_belongs_to_the_shipped_weights() -> None:
    from fsae_mlflow.recognizers.tiny import WEIGHTS

    card = RecognizerCard.from_json(WEIGHTS.with_suffix(".json"))
    assert card.weights_sha256 == sha256(WEIGHTS)
    assert "research only" in card.licence
    assert WEIGHTS.stat().st_size <= 3_000_000
    assert json.loads(card.to_json())["template_width"] == 512
