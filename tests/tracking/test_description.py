"""What the page of a run says: its name, its description, its tags and its parameters."""

import logging
import shlex
from pathlib import Path
from typing import Annotated, Any

import mlflow
import pytest
from click.testing import CliRunner
from mlflow.entities import LoggedModelOutput
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import EXECUTION, settings
from fsae_mlflow.tracking.command import command
from fsae_mlflow.tracking.data.datasets import dataset_entry
from fsae_mlflow.tracking.data.inputs import open_templates
from fsae_mlflow.tracking.groups import GROUPS, MAIN, grouped
from fsae_mlflow.tracking.runs.lifecycle import nested_run
from fsae_mlflow.tracking.runs.run import Run

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "tests" / "fixtures" / "version_0_1" / "templates"


@settings
class Example:
    """Something to run."""

    templates: Annotated[str, "Templates.", EXECUTION] = "latest"
    k: Annotated[int, "Number."] = 3
    limit: Annotated[float | None, "None by default."] = None
    words: Annotated[str, "Empty by default."] = ""

    @property
    def title(self) -> str:
        return f"k={self.k}"


def newest() -> mlflow.entities.Run:
    return mlflow.search_runs(search_all_experiments=True, order_by=["start_time DESC"], output_format="list")[0]


def invoke(function: Any, *args: str) -> Any:
    return CliRunner().invoke(command(Example, stage="example")(function), args)


@pytest.mark.usefixtures("store")
def test_a_finished_run_says_what_it_is_and_how_to_repeat_it(tmp_path: Path) -> None:
    def extract(settings: Example, run: Run) -> None:
        """Make templates."""
        run.log_path(TEMPLATES, "templates")

    def use(settings: Example, run: Run) -> None:
        """Use templates.

        In whatever way.
        """
        open_templates(run, settings.templates, context="test")
        run.under("lfw")({"all/accuracy": 0.9}, 0)
        run.on_epoch({"lr": 0.1}, 1)
        Image.new("L", (1800, 300)).save(tmp_path / "table.png")
        run.log_path(tmp_path / "table.png")
        run.conclude("all is well", folder=tmp_path, picture="table.png")

    assert CliRunner().invoke(command(Example, stage="extract")(extract), []).exit_code == 0
    made = newest()
    result = invoke(use, "--k", "5")
    used, first = (
        newest(),
        f"mlflow run . -e example --env-manager local \\\n    -P templates={made.info.run_id} -P k=5",
    )
    assert used.info.run_name == "example k=5"
    note, page = used.data.tags["mlflow.note.content"], f"#/experiments/{used.info.experiment_id}/runs"
    for part in (
        "Use templates.\n\n**all is well**\n\n[![table-small.png](",
        "| `lfw/all/accuracy` | &emsp;0.9 |",
        f"![table-small.png](get-artifact?path=table-small.png&run_uuid={used.info.run_id})",
        f"- templates: [extract k=3]({page}/{made.info.run_id}?workflowType=machine_learning), digest `",
        f"(get-artifact?path=table.png&run_uuid={used.info.run_id})",
        f"{first}\npython -m entrypoints.example --templates {made.info.run_id} \\\n    --k 5",
    ):
        assert part in note
    headline, files, address = result.stdout.splitlines()
    assert (headline, files) == ("example k=5: all is well", f"files: {tmp_path}")
    assert f"{page}/{used.info.run_id}?workflowType=machine_learning" in address
    assert shlex.join(["--backend-store-uri", mlflow.get_tracking_uri()]) in address
    assert used.data.tags["fsae.templates.run"] == made.info.run_id
    assert used.data.tags.keys() >= {"fsae.version", "mlflow.source.git.commit", "mlflow.source.git.dirty"}
    assert used.data.params == {"templates": "latest", "k": "5"}
    assert used.data.metrics == {"lfw/all/accuracy": 0.9, "per_epoch/train/lr": 0.1}
    with Image.open(mlflow.artifacts.download_artifacts(f"{used.info.artifact_uri}/table-small.png")) as image:
        assert image.size[0] == 640
    dataset = used.inputs.dataset_inputs[0].dataset
    assert '"name": "template"' in dataset.schema and '"n_rows": 48' in dataset.profile
    loaded = Path(mlflow.data.get_source(dataset).load())
    assert {path.name for path in loaded.iterdir()} == {path.name for path in TEMPLATES.iterdir()}


@pytest.mark.usefixtures("store")
def test_a_description_keeps_the_warnings() -> None:
    """Each once, as it was printed; those of the server, and those of a run within the run, are not its own."""

    def warn(settings: Example, run: Run) -> None:
        """Warn."""
        lines = [("sae", "L0 is *far*."), ("sae", "L0 is *far*."), ("tracking.runs", "no answer")]
        lines += [("tracking.children", f"stage {number} is left out") for number in range(6)]
        for name, text in lines:
            logging.getLogger(f"fsae_mlflow.{name}").warning(text)
        with nested_run(run, "child", stage="trial"):
            logging.getLogger("fsae_mlflow.sae").warning("of the child")
        run.conclude("done", folder=ROOT)

    assert invoke(warn).exit_code == 0
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    note = next(one.data.tags["mlflow.note.content"] for one in found if one.data.tags["fsae.stage"] == "example")
    listed = "\n".join(f"- stage {number} is left out" for number in range(4))
    assert f"**done**\n\nWarnings:\n\n- L0 is \\*far\\*.\n{listed}\n- and 2 more\n\nRepeat it with" in note


@pytest.mark.usefixtures("store")
def test_a_run_that_failed_says_why() -> None:
    def fail(settings: Example, run: Run) -> None:
        """Do something."""
        raise UserError("faces: there\nare none.")

    invoke(fail)
    note = newest().data.tags["mlflow.note.content"]
    assert note.startswith("**Not finished:** faces: there are none.\n\nDo something.\n\nRepeat it with:")


@pytest.mark.usefixtures("store")
def test_a_name_that_the_user_gave_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = mlflow.set_experiment("e").experiment_id
    for name in ("my own", "second"):
        waiting = mlflow.MlflowClient().create_run(experiment, run_name=name)
        monkeypatch.setenv("MLFLOW_RUN_ID", waiting.info.run_id)
        assert invoke(lambda settings, run: None).exit_code == 0
        assert mlflow.get_run(waiting.info.run_id).info.run_name == name


@pytest.mark.usefixtures("store")
def test_a_parent_lists_the_datasets_and_models_of_its_children() -> None:
    experiment, client = mlflow.set_experiment("e").experiment_id, mlflow.MlflowClient()
    parent, child = (Run(client.create_run(experiment), stage) for stage in ("demo", "train_sae"))
    dataset = dataset_entry("faces", "abc", source="runs:/1/templates")
    child.log("dataset", dataset=dataset, context="training")
    child.on_metrics({"heldout/fvu": 0.1, "heldout/mse": 2.0})
    model = client.create_logged_model(experiment, name="sae", source_run_id=child.id).model_id
    client.log_outputs(child.id, [LoggedModelOutput(model, step=0)])
    assert child.journal.flush(60.0)
    parent.copy_from(child, metrics=MAIN, artifacts=[])
    assert parent.journal.flush(60.0)
    kept = client.get_run(parent.id)
    assert kept.data.metrics == {"heldout/fvu": 0.1}
    assert [one.dataset.digest for one in kept.inputs.dataset_inputs] == ["abc"]
    assert [one.model_id for one in kept.outputs.model_outputs] == [model]


def test_metrics_have_documented_groups() -> None:
    documented = (ROOT / "docs" / "runs.md").read_text()
    for name, meaning in GROUPS.items():
        assert f"| `{name}/` | {meaning} |" in documented
    assert {name.split("/")[0] for name in MAIN} <= GROUPS.keys()
    assert grouped({"all/eer": 1.0, "heldout/fvu": 2.0}, "lfw") == {"lfw/all/eer": 1.0, "heldout/fvu": 2.0}
