"""Weights files of others: data alone, dense, of the right shapes, and no larger in memory than on disk."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.recognizers.checkpoint import load_exactly, read_checkpoint, state_dict


def load(path: Path) -> None:
    load_exactly(torch.nn.Linear(3, 2), state_dict(read_checkpoint(str(path)), str(path)), str(path))


WEIGHTS = torch.nn.Linear(3, 2).state_dict()


def test_weights_are_read(tmp_path: Path) -> None:
    for content in (WEIGHTS, {"state_dict": WEIGHTS, "epoch": 3}, {"state_dict_backbone": WEIGHTS}):
        torch.save(content, tmp_path / "a.pt")
        load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "it is empty"),
        ([1], "must hold a dictionary of weights; it holds a list"),
        ({**WEIGHTS, 3: torch.ones(1)}, "not dense tensors: 3"),
        ({**WEIGHTS, "bias": torch.ones(2).to_sparse()}, "not dense tensors: bias"),
        ({**WEIGHTS, "bias": torch.ones(2, device="meta")}, "not dense tensors: bias"),
        ({**WEIGHTS, "bias": torch.ones(1).expand(10**9)}, "not dense tensors: bias"),
        ({**WEIGHTS, "bias": torch.ones(3)}, "of another shape: bias"),
        ({**WEIGHTS, "state_dict_backbone": 3}, "not dense tensors: state_dict_backbone"),
    ],
)
def test_foreign_content_is_refused_by_name(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=words) as refusal:
        load(tmp_path / "a.pt")
    assert "a.pt" in str(refusal.value)


def test_empty_and_compressed_files_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1 << 20)}, tmp_path / "large.pt")
    with zipfile.ZipFile(tmp_path / "large.pt") as large, zipfile.ZipFile(tmp_path / "bomb.pt", "w", 8) as bomb:
        for entry in large.infolist():
            bomb.writestr(entry.filename, large.read(entry))
    (tmp_path / "empty.pt").touch()
    for name, words in (("bomb.pt", "it is compressed"), ("empty.pt", "not a readable torch file")):
        with pytest.raises(UserError, match=words) as refusal:
            load(tmp_path / name)
        assert name in str(refusal.value)
