"""Which stages of a pipeline run again; the stages themselves are stand-ins that only log what they made."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from fsae_mlflow.errors import UserError
from fsae_mlflow.pipeline.settings import PipelineSettings
from fsae_mlflow.pipeline.stages import STAGES
from fsae_mlflow.tracking.children import pipeline
from fsae_mlflow.tracking.children.pipeline import run_pipeline
from fsae_mlflow.tracking.children.reuse import FINGERPRINT_TAG
from fsae_mlflow.tracking.data.outputs import DIGEST_TAG
from fsae_mlflow.tracking.runs.lifecycle import Run

ALL = list(STAGES)


class Project:
    """A project with two pictures, whose stages are stand-ins."""

    def __init__(self, root: Path) -> None:
        self.client, self.experiment = mlflow.MlflowClient(), mlflow.set_experiment("e").experiment_id
        self.root = root
        self.ran: list[str] = []
        self.during: dict[str, Callable[[], None]] = {}
        for name in ("MLproject", "entrypoints/extract.py", "people/one/1.png", "people/two/1.png", "labels.csv"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        (root / "pyproject.toml").write_text('[project]\ndependencies = ["numpy>=2", "no-such-package"]')

    def stage(self, parent: Run, name: str, values: dict[str, Any]) -> Run:
        """Log a run that made something that depends on the values, except on run ids."""
        self.ran.append(name)
        tags = {"fsae.stage": name, "mlflow.parentRunId": parent.id}
        run = self.client.create_run(parent.experiment_id, tags=tags)
        decides = sorted((key, str(value)) for key, value in values.items() if key not in STAGES[name].inputs)
        self.client.set_tag(run.info.run_id, DIGEST_TAG, hashlib.sha256(repr((name, decides)).encode()).hexdigest())
        self.client.log_text(run.info.run_id, name, "folder/made.txt")
        self.client.log_metric(run.info.run_id, "faces/n_faces", 2)
        try:
            self.during.get(name, lambda: None)()
        except BaseException:
            self.client.set_terminated(run.info.run_id, "FAILED")
            raise
        self.client.set_terminated(run.info.run_id)
        return Run(self.client.get_run(run.info.run_id), name)

    def run(self, **values: Any) -> list[str]:
        """Run the pipeline, and give the names of the stages that ran."""
        stages = {"train_sae": {"register": False}} | values.pop("stages", {})
        self.parent = Run(self.client.create_run(self.experiment), "pipeline")
        self.ran.clear()
        given = {"faces": str(self.root / "people"), "attributes": str(self.root / "labels.csv")} | values
        self.done = run_pipeline(self.parent, PipelineSettings(**given, stages=stages))
        self.parent.journal.close(60.0)
        return list(self.ran)


@pytest.fixture
def project(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    monkeypatch.setattr(pipeline, "run_entry_point", made.stage)
    return made


def test_what_is_unchanged_is_reused_and_says_so(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert project.run() == ALL
    first = project.done
    assert project.run() == []
    for name in ALL:
        assert project.done[name].id == first[name].id
        assert f"{name}: reused run {first[name].id} (same inputs, settings and code)" in caplog.messages
    parent = project.client.get_run(project.parent.id)
    assert {name: parent.data.tags[f"fsae.stage.{name}.run"] for name in ALL} == {name: first[name].id for name in ALL}
    assert parent.data.metrics["faces/n_faces"] == 2
    assert project.run(cache=False) == ALL


def touched(path: str) -> Callable[[Project], None]:
    return lambda project: (project.root / path).write_text("changed")  # pyright: ignore[reportReturnType]


def with_further_file(project: Project) -> None:
    folder = mlflow.artifacts.download_artifacts(run_id=project.done["extract"].id)  # of a local store: the original
    (Path(folder) / "folder" / "eigenfaces.safetensors").touch()


def without_artifact(project: Project) -> None:
    folder = mlflow.artifacts.download_artifacts(run_id=project.done["describe"].id)  # of a local store: the original
    (Path(folder) / "folder" / "made.txt").unlink()


def of_deleted_run(project: Project) -> None:
    project.client.delete_run(project.done["explain"].id)


@pytest.mark.parametrize(
    ("change", "values", "again"),
    [
        (None, {"recognizer": "facenet"}, ALL),
        (None, {"stages": {"train_sae": {"register": False, "expansion": 4}}}, ALL[1:]),
        (None, {"stages": {"describe": {"controls": "none"}}}, ALL[2:]),
        (None, {"stages": {"visualize": {"steps": 3}}}, ["visualize", "browse"]),
        (None, {"stages": {"explain": {"device": "cuda", "batch_size": 7}}}, []),
        (touched("people/two/1.png"), {}, ["extract"]),  # the stand-in makes the same of it
        (touched("labels.csv"), {}, ["describe", "evaluate_lfw"]),
        (touched("entrypoints/extract.py"), {}, ALL),
        (with_further_file, {}, []),
        (without_artifact, {}, ["describe"]),
        (of_deleted_run, {}, ["explain"]),
    ],
)
def test_what_is_changed_runs_again(
    change: Callable[[Project], None] | None, values: dict[str, Any], again: list[str], project: Project
) -> None:
    project.run()
    if change:
        change(project)
    assert project.run(**values) == again
    assert project.run(**values) == []


def test_images_are_judged_by_attributes_where_there_are_a_judge_and_readings(project: Project) -> None:
    def again(labels: str, **values: str) -> list[str]:
        (project.root / "labels.csv").write_text(labels)
        return project.run(judge="tiny", **values)

    project.run(judge="tiny")
    assert again("second") == ["describe", "evaluate_lfw", "visualize"]
    again("second", skip="describe,browse")
    assert again("third", skip="describe,browse") == ["evaluate_lfw"]


def test_a_stopped_pipeline_goes_on_and_a_failed_stage_is_not_reused(project: Project) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    project.during["describe"] = stop
    with pytest.raises(KeyboardInterrupt):
        project.run()
    project.during.clear()
    assert project.run() == ALL[2:]


def test_a_stage_whose_files_change_while_it_runs_is_not_reused(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.during["extract"] = lambda: touched("people/one/1.png")(project)
    project.run()
    assert "extract: files or code changed while it ran, so this run will not be reused." in caplog.messages
    assert FINGERPRINT_TAG not in project.client.get_run(project.done["extract"].id).data.tags
    project.during.clear()
    assert project.run() == ["extract"]


def test_what_may_mean_another_thing_tomorrow_is_not_reused(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    values = {"stages": {"evaluate_lfw": {"density_templates": "latest"}}}
    assert project.run(**values) == ALL
    assert project.run(**values) == ["evaluate_lfw"]
    assert "evaluate_lfw: runs, because what latest names may have changed." in caplog.messages


def test_what_cannot_be_done_is_told_and_left_out(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise UserError("describe failed: readings need at least 20 people.")

    project.during["describe"] = refuse
    assert project.run(skip="evaluate_lfw") == [name for name in ALL if name not in ("evaluate_lfw", "browse")]
    assert "describe failed: readings need at least 20 people." in caplog.messages
    assert "browse: left out, because it needs describe." in caplog.messages
    project.during["visualize"] = refuse
    with pytest.raises(UserError, match="at least 20 people"):
        project.run(stages={"visualize": {"steps": 1}})


def test_a_model_that_left_the_registry_is_made_again(project: Project) -> None:
    def register() -> None:
        name = "mlflow-artifacts:/sae"
        run = project.client.search_runs([project.experiment], "tags.`fsae.stage` = 'train_sae'")[0]
        tags = {DIGEST_TAG: run.data.tags[DIGEST_TAG]}
        project.client.create_model_version("faces", name, run.info.run_id, tags=tags)

    project.client.create_registered_model("faces")
    project.during["train_sae"] = register
    values = {"stages": {"train_sae": {"model_name": "faces"}}}
    assert project.run(**values) == ALL
    assert project.run(**values) == []
    project.client.delete_model_version("faces", "1")
    assert project.run(**values) == ["train_sae"]
    assert project.run(**values) == []
    values["stages"]["train_sae"]["embed_recognizer"] = True  # which the registered version lacks
    assert "train_sae" in project.run(**values)


def test_outside_the_project_nothing_runs(project: Project) -> None:
    shutil.rmtree(project.root / "entrypoints")
    with pytest.raises(UserError, match="pipeline runs in the project's root, where MLproject is"):
        project.run()
    assert project.ran == []
