"""Benchmarks start as their docstrings say; what they measure is not tested."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_saelens_agrees_finds_the_project_from_anywhere(tmp_path: Path) -> None:
    """The peers' environment has this environment's packages by path alone, and so not the project."""
    (tmp_path / "sae_lens.py").write_text("class SAE:\n    def load_from_disk(folder):\n        raise SystemExit(7)\n")
    packages = os.pathsep.join([str(tmp_path), sysconfig.get_paths()["purelib"]])
    done = subprocess.run(
        [sys.executable, "-S", BENCHMARKS / "saelens_agrees.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": packages},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("name", ["planted", "planted_directions", "figure2"])
def test_benchmarks_on_planted_truth_find_the_tests_from_anywhere(tmp_path: Path, name: str) -> None:
    """The faces and directions that they are run on are the tests'."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
