"""The house's own rules, held by tests: who may import what, and one list of parameters."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from fsae_mlflow.parameters import options
from fsae_mlflow.tracking.command import StageCommand

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "fsae_mlflow").rglob("*.py"))
ENTRY_POINTS = sorted(path.stem for path in (ROOT / "entrypoints").glob("*.py") if path.stem != "__init__")
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
OWNERS = {"mlflow": ("tracking",), "click": ("tracking",), "optuna": ("sweep",)}


def imports(path: Path) -> set[str]:
    """The top-level packages a file imports, at its head or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", OWNERS)
def test_a_package_is_imported_by_its_owner_only(package: str) -> None:
    users = {path.relative_to(ROOT / "fsae_mlflow").parts[0] for path in MODULES if package in imports(path)}
    assert users == set(OWNERS[package])


def test_every_other_module_imports_without_mlflow_click_and_optuna() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if not {room for rooms in OWNERS.values() for room in rooms} & set(path.parts)
    ]
    code = f"import sys\nsys.modules.update(dict.fromkeys({list(OWNERS)!r}))\nimport importlib\n" + "\n".join(
        f"importlib.import_module({name!r})" for name in names
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_needs_neither_torch_nor_mlflow(name: str) -> None:
    code = (
        f"import sys, click.testing, entrypoints.{name} as entry\n"
        "result = click.testing.CliRunner().invoke(entry.main, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert not {'torch', 'mlflow', 'optuna', 'pyarrow'} & sys.modules.keys(), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_mlproject_lists_every_entry_point() -> None:
    assert sorted(PROJECT["entry_points"]) == ENTRY_POINTS


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlproject_is_equal_to_the_settings(name: str) -> None:
    command = importlib.import_module(f"entrypoints.{name}").main
    assert isinstance(command, StageCommand)
    known = {option.name: option for option in options(command.settings_class)}
    declared = PROJECT["entry_points"][name]["parameters"]
    presets = getattr(command.settings_class, "PRESETS", {}).values()
    for parameter, written in declared.items():
        option = known[parameter]
        assert written == (
            {"type": written["type"]} if option.required else {"type": written["type"], "default": option.default}
        )
        # MLflow passes and logs a declared default as if the user had given it, which a preset could not tell apart.
        assert not any(parameter in preset for preset in presets)
    flags = " ".join(f"--{parameter} {{{parameter}}}" for parameter in declared)
    assert PROJECT["entry_points"][name]["command"] == f"exec python -m entrypoints.{name} {flags}"


def test_conda_lists_the_requirements_of_the_package() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    listed = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    assert listed == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


@pytest.mark.parametrize(
    "path", [*MODULES, *(ROOT / "entrypoints").glob("*.py")], ids=lambda path: str(path.relative_to(ROOT))
)
def test_modules_are_small_and_named_for_what_they_do(path: Path) -> None:
    limit = 60 if path.parent.name == "entrypoints" else 300
    assert len(path.read_text().splitlines()) <= limit
    assert path.stem not in {"utils", "common", "helpers", "config", "misc"}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_entry_points_never_import_one_another(name: str) -> None:
    assert "entrypoints" not in imports(ROOT / "entrypoints" / f"{name}.py")


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_pages_link_to_what_is_there(page: Path) -> None:
    text = page.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
