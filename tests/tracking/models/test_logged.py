"""LoggedModels of SAEs: metrics with their dataset, and how later stages find them."""

from pathlib import Path

import mlflow
import pytest

from fsae_mlflow.sae.saved import digest, load_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.data.inputs import find_sae, open_templates
from fsae_mlflow.tracking.models.logged import model_of
from fsae_mlflow.tracking.registry import log_sae, register_sae
from fsae_mlflow.tracking.runs.lifecycle import Run
from fsae_mlflow.tracking.runs.sending import attempt
from tests.tracking.models.made import FIXTURES, make_sae, register


@pytest.mark.usefixtures("store")
def test_saes_are_ranked_by_their_final_metrics(tmp_path: Path) -> None:
    for fvu in (0.3, 0.6, 0.2):
        register(make_sae(tmp_path / f"{fvu}", fvu))
    ranked = mlflow.search_logged_models(
        filter_string="metrics.`heldout/fvu` < 0.5",
        order_by=[{"field_name": "metrics.heldout/fvu"}],
        output_format="list",
    )
    assert [digest(tmp_path / fvu) for fvu in ("0.2", "0.3")] == [one.tags["fsae.digest"] for one in ranked]
    assert ranked[0].name == "gated λ=0·1 ×4"
    metrics = {metric.key: metric for metric in ranked[0].metrics}
    assert metrics["heldout/fvu"].value == 0.2
    assert (metrics["heldout/fvu"].dataset_name, metrics["heldout/fvu"].dataset_digest) == ("synthetic", "one")


@pytest.mark.usefixtures("store")
def test_the_final_metrics_are_in_the_run_once(tmp_path: Path) -> None:
    _, run = register(make_sae(tmp_path / "sae", 0.3))
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "heldout/fvu")
    assert [(point.step, point.value) for point in history] == [(7, 0.3)]


@pytest.mark.usefixtures("store")
def test_a_later_stage_adds_to_the_model_however_the_sae_is_named(tmp_path: Path) -> None:
    folder = make_sae(tmp_path / "sae", 0.3)
    experiment = mlflow.set_experiment("e").experiment_id
    with mlflow.start_run(experiment_id=experiment) as trained:
        run = Run(trained, "train_sae")
        run.set_tags({"fsae.stage": "train_sae"})
        log_sae(run, folder)
        register_sae(run, load_sae(folder), folder, name="small")
        run.journal.flush(10.0)
    (model,) = mlflow.search_logged_models(output_format="list")
    names = [trained.info.run_id, "latest", "models:/small/1", "models:/small@champion", f"models:/{model.model_id}"]
    for number, name in enumerate([*names, str(folder)]):
        with mlflow.start_run(experiment_id=experiment) as active:
            run = Run(active, "evaluate_lfw")
            open_templates(run, str(FIXTURES / "templates"), context="verification")
            find_sae(run, name)
            run.of_sae("lfw")({"all/accuracy": 0.9 + number / 100, "all/wilson_low": 0.8, "all/wilson_high": 0.99}, 0)
            run.update_card()
            assert run.journal.flush(10.0)
        assert [one.model_id for one in mlflow.get_run(active.info.run_id).inputs.model_inputs] == [model.model_id]
        (found,) = mlflow.search_logged_models(
            filter_string=f"metrics.`lfw/all/accuracy` > {0.895 + number / 100}",
            datasets=[{"dataset_name": "synthetic"}],
            output_format="list",
        )
        metric = max(found.metrics, key=lambda one: one.value if one.key == "lfw/all/accuracy" else 0)
        assert (found.model_id, metric.value) == (model.model_id, 0.9 + number / 100)
        assert metric.dataset_digest == TemplateSet.open(FIXTURES / "templates").digest
    version = mlflow.MlflowClient().get_model_version("small", "1")
    assert version.tags["fsae.lfw_accuracy"] == "0.9500"
    assert (
        "| lfw/all/accuracy | &emsp;0.95 (95 %: 0.8000…0.9900) | &emsp;synthetic |" in version.description.splitlines()
    )


@pytest.mark.usefixtures("store")
def test_a_deleted_model_is_not_used(tmp_path: Path) -> None:
    client, folder = mlflow.MlflowClient(), make_sae(tmp_path / "sae", 0.3)
    register(folder)
    client.delete_logged_model(model_of(client.get_model_version("small", "1")))
    for name in (str(folder), "models:/small/1"):
        with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
            run = Run(active, "evaluate_lfw")
            find_sae(run, name)
            run.update_card()
            assert run.journal.flush(10.0) and run.model_id == ""
    assert register(folder)[0] == "2"


@pytest.mark.usefixtures("store")
def test_an_sae_that_was_never_logged_has_no_model(tmp_path: Path) -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("e").experiment_id) as active:
        run = Run(active, "evaluate_lfw")
        find_sae(run, str(make_sae(tmp_path / "sae", 0.3)))
        run.of_sae("lfw")({"all/accuracy": 0.9}, 0)
        run.update_card()
        assert run.journal.flush(10.0) and run.model_id == ""
    assert mlflow.get_run(active.info.run_id).data.metrics == {"lfw/all/accuracy": 0.9}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("do", ["model", "used_model"])
def test_a_model_whose_entry_is_sent_twice_is_there_once(do: str) -> None:
    client, experiment = mlflow.MlflowClient(), mlflow.set_experiment("e").experiment_id
    model, run_id = client.create_logged_model(experiment).model_id, client.create_run(experiment).info.run_id
    entry = {"do": do, "model": model}
    assert [attempt(client, run_id, [entry]) for _ in range(2)] == [None, None]
    found = client.get_run(run_id)
    models = [*found.outputs.model_outputs, *found.inputs.model_inputs]
    assert [one.model_id for one in models] == [model]
