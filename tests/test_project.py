"""The project as MLflow runs it: real `mlflow run` calls in processes of their own."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import mlflow
import pytest
import yaml

import fsae_mlflow

ROOT = Path(__file__).parents[1]
STAGES = ["demo", "describe", "evaluate_lfw", "explain", "extract", "train_sae", "visualize"]


def test_one_version_and_one_license_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == fsae_mlflow.__version__
    assert f"\n## {fsae_mlflow.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert all((ROOT / name).is_file() for name in project["license-files"])


def start(store: str, *command: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def runs(store: str) -> list[mlflow.entities.Run]:
    mlflow.set_tracking_uri(store)
    return mlflow.search_runs(search_all_experiments=True, output_format="list")


@pytest.fixture
def project_store(tmp_path: Path, mlflow_template: Path) -> str:
    """A store of the test's own whose artifacts stay out of the checkout."""
    database = tmp_path / "mlflow.db"
    database.write_bytes(mlflow_template.read_bytes())
    store = f"sqlite:///{database}"
    mlflow.MlflowClient(tracking_uri=store).create_experiment("test", artifact_location=(tmp_path / "runs").as_uri())
    return store


def test_the_demo_runs_as_a_project(project_store: str, faces: Path) -> None:
    parameters = {"faces": faces, "epochs": 2, "folds": 2, "steps": 2}
    arguments = [word for key, value in parameters.items() for word in ("-P", f"{key}={value}")]
    command = ("mlflow", "run", ".", "-e", "demo", "--env-manager", "local", "--experiment-name", "test", *arguments)
    process = start(project_store, *command)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    found = {run.data.tags["fsae.stage"]: run for run in runs(project_store)}
    assert sorted(found) == STAGES
    # Eight people are too few to read features on, and their pairs too few to explain; the demo says so, and goes on.
    left_out = {stage for stage, run in found.items() if run.info.status != "FINISHED"}
    assert left_out == {"describe", "explain"}
    assert "at least 20 people" in output and "at least 100 impostor pairs" in output
    parent = found["demo"]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in found.values() if run is not parent)
    assert found["train_sae"].data.params | {"epochs": "2", "expansion": "1"} == found["train_sae"].data.params
    assert found["train_sae"].data.metrics["train/lam"] > 0
    assert "''" not in {value for run in found.values() for value in run.data.params.values()}
    assert parent.data.metrics["faces/n_faces"] == found["extract"].data.metrics["faces/n_faces"] == 24
    assert parent.data.metrics["lfw/all/accuracy"] == found["evaluate_lfw"].data.metrics["lfw/all/accuracy"]
    assert {stage: run.info.run_name for stage, run in found.items()} == {
        "demo": f"demo {faces.name} tiny",
        "extract": f"extract {faces.name} tiny",
        "train_sae": "train_sae gated ×1",
        "describe": "describe gated ×1",
        "evaluate_lfw": "evaluate_lfw gated ×1",
        "explain": "explain gated ×1",
        "visualize": "visualize gated ×1",
    }
    pictures = {artifact.path for artifact in mlflow.MlflowClient().list_artifacts(parent.info.run_id)}
    assert {"accepted.png", "density.png", "table.png", "features.png"} <= pictures
    assert f"{sys.executable} -m mlflow ui --backend-store-uri {project_store}" in output
    assert f"runs/{parent.info.run_id}" in output
    assert "browse: left out, because it needs describe." in output
    digests = {stage: {one.dataset.digest for one in run.inputs.dataset_inputs} for stage, run in found.items()}
    assert digests["extract"] | digests["train_sae"] <= digests["demo"]
    models = found["train_sae"].outputs.model_outputs
    assert [one.model_id for one in parent.outputs.model_outputs] == [one.model_id for one in models]

    process = start(project_store, *command)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    reused = {name for name in found if f"{name}: reused run {found[name].info.run_id} (same inputs" in output}
    assert reused == set(STAGES) - left_out - {"demo"}
    assert "4 stages, 4 of them reused" in output


def test_two_first_projects_share_the_store_that_the_readme_creates(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    creation = next(line for line in (ROOT / "README.md").read_text().splitlines() if "set_experiment" in line)
    assert start(store, "sh", "-c", creation).wait() == 0
    upload = ("mlflow", "run", ".", "-e", "upload", "--env-manager", "local", "--experiment-name", "fsae_mlflow")
    for process in [start(store, *upload, "-P", f"folder={tmp_path}") for _ in range(2)]:
        output, _ = process.communicate()
        assert "nothing waits to be logged there" in output, output  # what the stage itself says


def test_sigterm_ends_parent_and_child(project_store: str, faces: Path) -> None:
    process = start(project_store, sys.executable, "-m", "entrypoints.demo", "--faces", str(faces))
    deadline = time.monotonic() + 120
    while not any(run.data.tags.get("fsae.stage") == "extract" for run in runs(project_store)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    found = {run.data.tags["fsae.stage"]: run for run in runs(project_store)}
    assert {stage: run.info.status for stage, run in found.items()} == {"demo": "KILLED", "extract": "KILLED"}, output
    assert {run.data.tags["fsae.reason"] for run in found.values()} == {"stopped by SIGTERM"}
