"""What docs/scale.md makes of the project for MLflow's Kubernetes backend, as far as no cluster is needed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow.projects._project_spec import load_project

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # of a container, in Kubernetes


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project that the page's own lines make."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "MLproject", tmp_path)
    page = (ROOT / "docs" / "scale.md").read_text()
    lines = [line.strip() for line in page.splitlines() if line.startswith(("    mkdir -p build", "    sed "))]
    subprocess.run("\n".join(lines), shell=True, check=True)
    return tmp_path / "build" / "kubernetes"


def test_every_stage_is_a_command_of_an_image(project: Path) -> None:
    made, own = load_project(str(project)), yaml.safe_load((ROOT / "MLproject").read_text())
    assert NAME.fullmatch(made.name)
    assert made.docker_env == {
        "image": json.loads((ROOT / "deploy" / "kubernetes_config.json").read_text())["repository-uri"]
    }
    assert sorted(made._entry_points) == sorted(own["entry_points"])
    for name in made._entry_points:
        # Without a shell the first word is a program, so `exec` would not be found.
        assert made.get_entry_point(name).command.startswith(f"python -m entrypoints.{name} ")


def test_the_job_has_what_mlflow_fills_in() -> None:
    settings = json.loads((ROOT / "deploy" / "kubernetes_config.json").read_text())
    job = yaml.safe_load((ROOT / settings["kube-job-template-path"]).read_text())
    assert job["kind"] == "Job" and job["metadata"]["namespace"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    workdir = re.search(r"^WORKDIR (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert workdir and container["volumeMounts"][0]["mountPath"] == f"{workdir[1]}/outputs"


def test_the_files_of_the_image_are_enough_for_a_command(tmp_path: Path) -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for source in " ".join(copied).split():
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    help_text = subprocess.run(
        [sys.executable, "-m", "entrypoints.extract", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--recognizer" in help_text.stdout
