"""The recognizer card: what it holds, and how a wrong one is refused."""

import json
from pathlib import Path

import pytest

from fsae_mlflow.files.documents import sha256
from fsae_mlflow.recognizers.card import RecognizerCard


def test_card_survives_its_file(tmp_path: Path) -> None:
    card = RecognizerCard(name="a", channels="bgr", std=(128.0, 128.0, 128.0), lfw_accuracy={"mean": 0.99})
    card.write(tmp_path / "a.json")
    assert RecognizerCard.from_json(tmp_path / "a.json") == card


def test_left_out_fields_take_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text("{}")
    assert RecognizerCard.from_json(tmp_path / "mine.json") == RecognizerCard(name="mine")


def test_its_json_is_what_it_always_was(tmp_path: Path) -> None:
    """Plans of extractions and template sets hold it: another order or spelling of a number would make them differ."""
    (tmp_path / "a.json").write_text('{"licence": "MIT", "std": [128, 128, 128], "name": "a"}')
    assert RecognizerCard.from_json(tmp_path / "a.json").to_json() == (
        '{\n  "name": "a",\n  "input_size": 112,\n  "channels": "rgb",\n'
        '  "mean": [\n    127.5,\n    127.5,\n    127.5\n  ],\n  "std": [\n    128.0,\n    128.0,\n    128.0\n  ],\n'
        '  "template_width": 512,\n  "l2_normalized": false,\n  "licence": "MIT",\n  "source": "",\n'
        '  "training_data": "",\n  "weights_sha256": "",\n  "lfw_accuracy": null,\n  "notes": ""\n}\n'
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable JSON"),
        ("[1]", "must hold one JSON object"),
        ('{"color": "rgb"}', "color in the recognizer card .* is not known; known are name, input_size, .*, notes"),
        ('{"channels": "gbr"}', "channels in the recognizer card .* must be 'rgb' or 'bgr'; it is 'gbr'"),
        ('{"mean": [1, 2]}', r"mean in the recognizer card .* must be three numbers .*; it is \[1, 2\]"),
        ('{"mean": [1, true, 3]}', "mean in the recognizer card .* must be three numbers"),
        ('{"mean": [1, NaN, 3]}', "mean in the recognizer card .* must be three numbers"),
        ('{"std": [1, 0, 1]}', "std in the recognizer card .* must be three numbers above 0"),
        ('{"input_size": "112"}', "input_size in the recognizer card .* must be a valid integer; it is '112'"),
        ('{"input_size": 112.0}', "input_size in the recognizer card .* must be a valid integer"),
        ('{"template_width": true}', "template_width in the recognizer card .* must be a valid integer; it is True"),
        ('{"template_width": 1}', "template_width in the recognizer card .* greater than or equal to 2; it is 1"),
        ('{"l2_normalized": 1}', "l2_normalized in the recognizer card .* must be a valid boolean"),
        ('{"lfw_accuracy": 0.99}', "lfw_accuracy in the recognizer card .* must be a valid dictionary"),
        ('{"name": null}', "name in the recognizer card .* must be a valid string"),
        ('{"input_size": 0}', "input_size in the recognizer card .* must be greater than or equal to 8; it is 0"),
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
