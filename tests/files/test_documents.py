"""JSON and safetensors of others: read within bounds, or one sentence that names the file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fsae_mlflow.errors import UserError
from fsae_mlflow.files import documents
from fsae_mlflow.files.documents import parse_json, read_object, read_tensors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "must have at most 32 levels"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "must have at most 32 levels"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not readable JSON"),
        (b'{"a": "\\ud800"}', "not readable JSON"),
        (b"\xff{}", "not readable JSON"),
        (b"[]", "must hold one JSON object; it holds a list"),
        (b'{"n": true}', "must have n of type whole number from 0; it is True"),
        (b'{"n": -1}', "must have n of type whole number from 0; it is -1"),
        (b"{}", "must have n of type whole number from 0; it is missing"),
        (b" " * (17 << 20), "at most 16 MiB"),
    ],
    ids=range(10),
)
def test_a_hostile_json_file_is_refused_by_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=words) as refusal:
        read_object(tmp_path / "a.json", "Thing", remedy="give another", fields={"n": int})
    sentence = str(refusal.value)
    assert sentence.startswith(f"Thing {tmp_path / 'a.json'}") and sentence.endswith("give another.")
    assert len(sentence) < 400


def test_usual_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"n": 3, "deep": ' + "[" * 31 + "]" * 31 + "}")
    assert read_object(tmp_path / "a.json", "Thing", remedy="", fields={"n": int})["n"] == 3
    assert parse_json("[1]", "Thing", remedy="") == [1]
    for missing in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UserError, match=r"does not exist|cannot be read"):
            read_object(missing, "Thing", remedy="give another")


def test_a_large_header_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3)}, path, metadata={"b": "c"})
    tensors, metadata = read_tensors(path, "Weights", remedy="give others")
    assert (tensors["a"].tolist(), metadata) == ([1, 1, 1], {"b": "c"})
    monkeypatch.setattr(documents, "LARGEST_HEADER", 16)
    with pytest.raises(UserError, match=r"its header has .* bytes; at most 16 are read"):
        read_tensors(path, "Weights", remedy="give others")
