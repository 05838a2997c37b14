"""SAEs and readings as the input of a run: what their name means, and what the run keeps of it."""

import json
from pathlib import Path

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.types import Schema

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.table import FEATURES, TOP_FACES, readings_digest
from fsae_mlflow.tracking.data.inputs import READINGS, find_readings, find_sae
from fsae_mlflow.tracking.runs.lifecycle import Run
from tests.tracking.models.made import GATED


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
def test_a_run_says_what_its_sae_and_its_readings_hold(readings: Path) -> None:
    pq.write_table(pa.table({"feature": [0, 1], "reading": ["Hat.", "dead"], "parts": [[1], []]}), readings / FEATURES)
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "visualize")
        find_sae(run, str(GATED))
        find_readings(run, str(readings))
        run.journal.flush(60.0)
    kept = {one.dataset.name: one.dataset for one in mlflow.get_run(active.info.run_id).inputs.dataset_inputs}
    columns = {
        name: Schema.from_json(json.dumps(json.loads(one.schema)["mlflow_colspec"])) for name, one in kept.items()
    }
    assert columns["sae"].input_names() == ["W_enc", "W_dec"]
    assert columns["readings"].input_names() == ["feature", "reading"]
    assert json.loads(kept["readings"].profile) == {"n_features": 2}


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
