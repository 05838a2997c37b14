"""Artifacts of a remote store are downloaded once."""

from pathlib import Path

import mlflow
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from fsae_mlflow.tracking.data import downloads
from fsae_mlflow.tracking.data.downloads import downloaded
from tests.team.team_server import TeamServer


def test_an_artifact_is_downloaded_again_only_when_it_has_changed(
    team: TeamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    monkeypatch.setattr(downloads, "download_artifacts", lambda **named: fetched.append(download_artifacts(**named)))
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "a.txt").write_text("a")
    (tmp_path / "set" / "deep" / "b.txt").write_text("b")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "set"), "set")
        address = f"{run.info.artifact_uri}/set"
        for _ in range(2):
            folder = downloaded(address)
            assert (folder.name, (folder / "deep" / "b.txt").read_text()) == ("set", "b")
        assert len(fetched) == 1

        (tmp_path / "set" / "deep" / "b.txt").write_text("longer")
        mlflow.log_artifacts(str(tmp_path / "set"), "set")
        assert (downloaded(address) / "deep" / "b.txt").read_text() == "longer"
        (folder / "a.txt").unlink()
        assert (downloaded(address) / "a.txt").is_file() and len(fetched) == 3
        with pytest.raises((MlflowException, OSError)):
            downloaded(f"{run.info.artifact_uri}/nothing")
