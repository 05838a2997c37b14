"""Readings as the input of a run: what their name means, and what the run keeps of it."""

from pathlib import Path

import mlflow
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.table import FEATURES, TOP_FACES, readings_digest
from fsae_mlflow.tracking.data.inputs import READINGS, find_readings
from fsae_mlflow.tracking.runs.lifecycle import Run


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    folder = tmp_path / "readings"
    folder.mkdir()
    for name in (FEATURES, TOP_FACES):
        (folder / name).write_text(name)
    return folder


def run_of(stage: str, folder: Path | None = None) -> str:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id, tags={"fsae.stage": stage}) as active:
        if folder:
            mlflow.log_artifacts(str(folder), READINGS)
        return active.info.run_id


@pytest.mark.usefixtures("store")
def test_a_run_says_which_readings_it_used(readings: Path) -> None:
    described = run_of("describe", readings)
    run_of("train_sae")
    for name, origin in (
        ("latest", f"runs:/{described}/readings"),
        (described, f"runs:/{described}/readings"),
        ("readings", str(readings)),
    ):
        with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
            run = Run(active, "visualize")
            folder = find_readings(run, name)
            run.journal.flush(60.0)
        assert readings_digest(folder) == readings_digest(readings)
        kept = mlflow.get_run(active.info.run_id)
        assert kept.data.tags["fsae.readings"] == origin
        assert kept.data.tags["fsae.readings.digest"] == readings_digest(readings)
        (dataset,) = kept.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("readings", readings_digest(readings))


@pytest.mark.usefixtures("store")
def test_readings_that_are_not_there_name_the_way(readings: Path) -> None:
    trained = run_of("train_sae")
    (readings / TOP_FACES).unlink()
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "visualize")
        for name, sentence in (
            ("latest", "has no finished describe run; make one with `mlflow run . -e describe`"),
            ("nowhere", "readings: nowhere is neither a folder nor a run"),
            (trained, f"readings: run {trained} has no artifact readings; give a run of describe"),
            (str(readings), f"readings: {readings} has no {TOP_FACES}; give a folder that describe wrote"),
        ):
            with pytest.raises(UserError, match=sentence):
                find_readings(run, name)
