"""The README's Python example runs as it stands."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_example_without_mlflow_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fixtures = ROOT / "tests" / "fixtures" / "version_0_1"
    shutil.copytree(fixtures / "templates", tmp_path / "templates")
    shutil.copytree(fixtures / "saes" / "gated", tmp_path / "sae")
    monkeypatch.chdir(tmp_path)
    section = (ROOT / "README.md").read_text().split("## The library without MLflow")[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found and len(found[1].strip().splitlines()) <= 14
    exec(found[1], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(re.fullmatch(r"p\d\d/\d{3}\.jpg \d\.\d{3} \(112, 112\)", line) for line in lines)
