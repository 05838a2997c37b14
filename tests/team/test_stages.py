"""Every stage through a team's server: what it reads comes from there, and no password is told on the way."""

import shutil
from pathlib import Path

import mlflow
import pytest

from tests.conftest import N_PEOPLE, N_PICTURES
from tests.team.team_server import TeamServer
from tests.test_entrypoints import invoke, newest

SMALL = {"epochs": 2, "batch_size": 8, "holdout": 0.25}
STAGES = (
    ("train_sae", {**SMALL, "variant": "topk", "k": 8, "expansion": 2}),
    ("describe", {"controls": "none"}),
    ("evaluate_lfw", {"folds": 2, "readings": "latest"}),
    ("visualize", {"n_features": 2, "n_images": 1, "steps": 1, "n_top_faces": 2, "dial": False, "controls": "none"}),
    ("browse", {}),
    ("explain", {"folds": 2, "far": 0.2, "n_copies": 1, "n_deleted": 4, "n_hidden": 2}),
    ("sweep", {**SMALL, "n_trials": 2, "space": "lam:1e-3..1:log,expansion:1", "max_l0": 1000}),
    ("compare", {"saes": "models:/fsae/1,models:/fsae@champion", "initial": False}),
)


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
    assert newest("extract").data.metrics["n_faces"] == N_PEOPLE * N_PICTURES
    trained = newest("train_sae").info
    assert newest("evaluate_lfw").data.tags["fsae.sae"] == f"runs:/{trained.run_id}/sae"
    assert newest("compare").data.tags["fsae.saes.0"] == f"models:/fsae/1 of run {trained.run_id}"
    assert trained.artifact_uri.startswith("mlflow-artifacts:/")

    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert {run.info.status for run in runs} == {"FINISHED"} and len(runs) == 2 + 1 + len(STAGES)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    told = [*(str(run.to_dictionary()) for run in runs), said, caplog.text]
    for secret in team.secrets:
        assert not [text for text in told if secret in text]
        assert not [content for content in (*files, *team.objects()) if secret.encode() in content]
