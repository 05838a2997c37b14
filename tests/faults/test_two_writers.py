"""A second command that would write to a folder in use is refused."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.templates.set import TemplateSet
from tests.test_entrypoints import refuse


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("train_sae", {}),
        ("sweep", {}),
        ("evaluate_lfw", {"sae": "none"}),
        ("train_recognizer", {"teacher": "tiny", "faces": "faces"}),
    ],
)
def test_the_second_writer_is_refused(
    name: str,
    parameters: dict[str, str],
    template_set: TemplateSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a distillation needs takes long to import.
    monkeypatch.setitem(
        sys.modules,
        "fsae_mlflow.recognizers.distillation.stage",
        SimpleNamespace(distill=None, distillation_fingerprint=None),
    )
    if name != "train_recognizer":
        parameters = parameters | {"templates": str(template_set.folder)}
    with only_writer(tmp_path / "out"):
        sentence = refuse(name, output=tmp_path / "out", **parameters)
    assert f"is being written by process {os.getpid()}" in sentence
    assert list((tmp_path / "out").iterdir()) == []
