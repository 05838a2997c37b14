"""Which machine of a sweep registers the best SAE."""

import shutil
from pathlib import Path

import mlflow
import pytest

from fsae_mlflow.sweep.found import TrialResult
from fsae_mlflow.tracking.children import trials
from fsae_mlflow.tracking.children.trials import log_best
from fsae_mlflow.tracking.registry import log_sae
from fsae_mlflow.tracking.runs.lifecycle import Run
from tests.tracking.models.made import make_sae, register


def of_trial(folder: Path) -> TrialResult:
    """The result of a trial with its SAE in `folder`, which its run has too."""
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "trial")
        log_sae(run, make_sae(folder, 0.4))
        run.journal.flush(10.0)
    metrics = {"heldout/fvu": 0.4, "heldout/l0": 4.0}
    return TrialResult(number=0, chosen={"k": 4}, metrics=metrics, folder=folder, run_id=active.info.run_id)


def as_best(best: TrialResult) -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "sweep")
        sae = log_best(run, best, name="small", max_l0=8.0)
        run.journal.flush(10.0)
    assert sae.d_sae == 32


@pytest.mark.usefixtures("store")
def test_an_sae_whose_machine_is_gone_is_registered_from_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "REGISTRATION_SECONDS", 0.0)
    best = of_trial(tmp_path / "study" / "trial-0000")
    shutil.rmtree(best.folder)
    best.folder.mkdir()
    (best.folder / "checkpoint.pt").touch()  # what a trial that was stopped here and repeated elsewhere leaves
    as_best(best)
    assert mlflow.MlflowClient().get_registered_model("small").aliases == {"champion": 1}


@pytest.mark.usefixtures("store")
def test_an_sae_that_its_own_machine_registers_is_left_to_it(tmp_path: Path) -> None:
    best = of_trial(tmp_path / "study" / "trial-0000")
    register(best.folder)
    shutil.rmtree(best.folder)
    as_best(best)
    assert len(mlflow.MlflowClient().search_model_versions("name = 'small'")) == 1
