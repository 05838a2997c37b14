"""Every stage through a team's server: what it reads comes from there, and no password is told on the way."""

import shutil
from pathlib import Path

import mlflow
import pytest

from fsae_mlflow.templates.set import TemplateSet
from tests.conftest import N_PEOPLE, N_PICTURES
from tests.team.team_server import TeamServer
from tests.test_entrypoints import invoke, newest

SMALL = {"epochs": 2, "batch_size": 8, "holdout": 0.25}
STAGES = (
    ("train_sae", {**SMALL, "variant": "topk", "k": 8, "expansion": 2, "model_name": "faces"}),
    ("describe", {"controls": "none"}),
    ("evaluate_lfw", {"folds": 2, "readings": "latest"}),
    ("visualize", {"n_features": 2, "n_images": 1, "steps": 1, "n_top_faces": 2, "dial": False, "controls": "none"}),
    ("browse", {}),
    ("explain", {"folds": 2, "far": 0.2, "n_copies": 1, "n_deleted": 4, "n_hidden": 2}),
    ("compare", {"saes": "models:/faces/1,latest", "initial": False}),
)


def check_no_password_is_told(team: TeamServer, folder: Path, *said: str) -> None:
    """Neither in what was said, nor in the experiment's runs, nor in any file here or in the bucket."""
    runs = mlflow.search_runs(experiment_names=[folder.name], output_format="list")
    assert runs and {run.info.status for run in runs} == {"FINISHED"}
    told = [*(str(run.to_dictionary()) for run in runs), *said]
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in team.secrets:
        assert not [text for text in told if secret in text]
        assert not [content for content in (*files, *team.objects()) if secret.encode() in content]


def test_every_stage(
    team: TeamServer, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fsae_mlflow.features.describe.FEWEST_PEOPLE", N_PEOPLE)
    said = ""
    for name, parameters in (("extract", {"faces": faces, "aligned": True, "workers": 0}), *STAGES):
        result = invoke(name, **parameters)
        assert result.exit_code == 0, result.output
        said += result.output
        # The next stage has what the server has, and nothing else.
        shutil.move("outputs", tmp_path / f"written by {name}")
    assert newest("extract").data.metrics["faces/n_faces"] == N_PEOPLE * N_PICTURES
    trained = newest("train_sae").info
    assert newest("evaluate_lfw").data.tags["fsae.sae"] == f"runs:/{trained.run_id}/sae"
    assert newest("compare").data.tags["fsae.saes.0"] == f"models:/faces/1 of run {trained.run_id}"
    assert trained.artifact_uri.startswith("mlflow-artifacts:/")
    check_no_password_is_told(team, tmp_path, said, caplog.text)


def test_a_sweep(team: TeamServer, template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    search = {"epochs": 2, "space": "lam:1e-3..1e-2:log,expansion:1", "max_l0": 1000, "n_trials": 2}
    result = invoke("sweep", templates=template_set.folder, model_name="swept", **search)
    assert result.exit_code == 0, result.output
    assert invoke("evaluate_lfw", templates=template_set.folder, sae="models:/swept/1", folds=2).exit_code == 0
    check_no_password_is_told(team, tmp_path, result.output, caplog.text)
