"""The README's Python example runs as it stands, and every command of README and docs is one that a stage takes."""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(
    r"^ *(?:\S+=\S+ )*(?:mlflow run \. -e|python -m entrypoints\.)(?P<rest>(?:.*\\\n)*.*)$", re.MULTILINE
)


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """The commands that a page shows: the stage and the arguments that its entry point gets."""
    found = []
    for match in COMMAND.finditer(page.read_text()):
        stage, *words = shlex.split(match["rest"].replace("\\\n", " "), comments=True)
        arguments = iter(words)
        given = []
        for word in arguments:
            if word == "-P":
                name, _, value = next(arguments).partition("=")
                given += [f"--{name}", value]
            elif word in ("--env-manager", "--experiment-name", "--run-name", "--backend", "--backend-config"):
                next(arguments)  # MLflow's own
            else:
                given.append(word)
        found.append((stage, given))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_accepted(page: Path) -> None:
    found = commands(page)
    assert found or "mlflow run . -e" not in page.read_text()
    for stage, arguments in found:
        importlib.import_module(f"entrypoints.{stage}").main.make_context(stage, arguments)


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
