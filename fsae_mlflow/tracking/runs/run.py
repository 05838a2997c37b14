"""An MLflow run, with what the entry points log to it."""

import re
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import click
import mlflow
from mlflow.entities import Run as MlflowRun
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from pandas import DataFrame
from PIL import Image

from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.tracking.description import NOTE_TAG, Call, Input, describe_run, page_of
from fsae_mlflow.tracking.groups import grouped, main_metrics
from fsae_mlflow.tracking.runs.answers import patiently, server
from fsae_mlflow.tracking.runs.journal import MAX_PARAM_LENGTH, Journal, metric_points
from fsae_mlflow.tracking.runs.sending import stamp_of

MAX_NAME_LENGTH = 120
MAX_TAG_LENGTH = 5000
OUTPUTS = Path("outputs")
WIDEST_PICTURE = 640
RUN_NAME_TAG = "mlflow.runName"
NOT_CALLED = Call()
# MLflow calls a run that is given no name like this: quiet-fox-12.
RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d{1,3}")


class Run:
    """An MLflow run, with what the entry points log to it. Logging does not wait for the server: see the journal.

    A run that MLflow named at random names itself, by its stage and what `add_to_name` adds.
    """

    def __init__(self, run: MlflowRun, stage: str, folder: Path = OUTPUTS, call: Call = NOT_CALLED) -> None:
        self._begin(run.info.run_id, run.info.experiment_id, stage, call)
        self.names_itself = bool(RANDOM_NAME.fullmatch(run.info.run_name or ""))
        self.journal = Journal(self.id, folder, stage=stage)

    def _begin(self, run_id: str, experiment_id: str, stage: str, call: Call = NOT_CALLED) -> None:
        """What every run has, also one that logs nothing."""
        self.id = run_id
        self.experiment_id = experiment_id
        self.stage = stage
        self.call = call
        self.name = stage
        self.names_itself = False
        self.client = MlflowClient()
        self.logged: dict[str, float] = {}
        self.inputs: dict[str, Input] = {}
        self.at_root: dict[str, Path] = {}  # files that are logged at the artifacts' root
        self.not_logged: list[str] = []
        self.warnings: list[str] = []
        self.model_id = ""  # the LoggedModel of the SAE that the run made or used
        self.dataset: tuple[str, ...] = ()  # name and digest of its template set

    @property
    def leads(self) -> bool:
        """Whether this process logs: it is alone, or the first of those that torchrun started."""
        return True

    def log(self, do: str, **entry: Any) -> None:
        """Put an entry of the journal's kind `do` into the run's journal."""
        self.journal.put({"do": do, **entry})

    def on_metrics(self, metrics: Mapping[str, float], step: int = 0, *, of: Sequence[str] = ()) -> None:
        """Log metrics at one step, if there are any, the main ones first, by which MLflow compares runs.

        Names begin with a group (groups.py). `of`: see `Point`.
        """
        if points := metric_points(main_metrics(metrics) | dict(metrics), step, of):
            self.logged |= metrics
            self.log("metrics", metrics=points)

    def under(self, group: str) -> OnMetrics:
        """What logs metrics whose names may lack a group, in this one."""
        return lambda metrics, step=0: self.on_metrics(grouped(metrics, group), step)

    def of_sae(self, group: str) -> OnMetrics:
        """The same for metrics of the run's SAE on its template set, which go to its LoggedModel too, if it has one,
        but for those of controls.
        """

        def log(metrics: Mapping[str, float], step: int = 0) -> None:
            named = grouped(metrics, group)
            of_controls = {name: value for name, value in named.items() if "/controls/" in name}
            of = (self.model_id, *self.dataset) if self.model_id else ()
            self.on_metrics({name: value for name, value in named.items() if name not in of_controls}, step, of=of)
            self.on_metrics(of_controls, step)

        return log

    def update_card(self, readings: Path | None = None) -> None:
        """Write the cards of the run's SAE again; add `readings`, which `write_shipped` wrote, to its LoggedModel."""
        if self.model_id:
            self.log("card", model=self.model_id, readings=str(readings.resolve()) if readings else "")

    def on_epoch(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Log what a training measures after an epoch as `per_epoch/GROUP/…`, apart from its final metrics."""
        named = grouped(metrics, "train")
        self.on_metrics({f"per_epoch/{name}": value for name, value in (main_metrics(named) | named).items()}, epoch)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Log the parameters that have a value and that the run does not have yet.

        `mlflow run` has logged the given ones as they were typed, and MLflow refuses a second value, even 0.0001 after
        1e-4.
        """
        known = {name: str(value)[:MAX_PARAM_LENGTH] for name, value in values.items() if value not in (None, "")}
        self.log("params", values=known)

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of another run; one that is deleted is passed over."""
        self.log("tag_run", values=dict(tags), run=run_id)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self.log("tags", values={name: value[:MAX_TAG_LENGTH] for name, value in tags.items()})

    def log_json(self, value: Any, name: str) -> None:
        self.log("json", value=value, name=name)

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """Log rows as a table, which the MLflow UI shows and compares between runs."""
        self.log("table", text=DataFrame(rows).to_json(orient="split", index=False), name=name)

    def log_path(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder, as artifacts under `folder`."""
        if not path.is_dir():
            self.log("path", path=str(path.resolve()), folder=folder, stamp=stamp_of(path))
            self.at_root |= {} if folder else {path.name: path}
            return
        for file in sorted(one for one in path.rglob("*") if one.is_file()):  # an entry each, so that each is sent once
            place = PurePosixPath(folder or "", file.relative_to(path).parent.as_posix())
            self.log_path(file, str(place) if place.parts else None)

    def on_image(self, key: str) -> Callable[[Path, int], None]:
        """What logs the pictures of a series, each a file, which the UI shows with a slider over steps."""

        def log(path: Path, step: int) -> None:
            self.log("image", path=str(path.resolve()), key=key, step=step)

        return log

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric that is logged so far."""
        if self.leads:
            self.journal.flush()
        return patiently(lambda: self.client.get_run(self.id)).data.metrics

    @property
    def tags(self) -> dict[str, str]:
        """The tags that the server has."""
        return patiently(lambda: self.client.get_run(self.id)).data.tags

    def copy_from(self, child: "Run", *, metrics: Collection[str], artifacts: Collection[str]) -> None:
        """Log a child's datasets, models, metrics and top-level artifacts here too; of the latter those of the given
        names that the child has.
        """
        self.on_metrics({name: value for name, value in child.metrics.items() if name in metrics})
        found = patiently(lambda: self.client.get_run(child.id))
        for one in found.inputs.dataset_inputs if found.inputs else []:
            context = next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), "")
            self.log("dataset", dataset=dict(one.dataset), context=context)
        for model in found.outputs.model_outputs if found.outputs else []:
            self.log("model", model=model.model_id)
        for artifact in patiently(lambda: self.client.list_artifacts(child.id)):
            if artifact.path in artifacts:
                download = partial(self.client.download_artifacts, child.id, artifact.path)
                self.log_path(Path(patiently(download)))

    @property
    def local_artifacts(self) -> Path | None:
        """The folder of the run's artifacts, where it is on this machine."""
        address = patiently(lambda: self.client.get_run(self.id)).info.artifact_uri
        return Path(local_file_uri_to_path(address)).resolve() if is_local_uri(address) else None

    def add_to_name(self, words: str) -> None:
        """Say in the run's name what it is, unless the user has named it."""
        if self.names_itself:
            self.name = f"{self.name} {words}".strip()[:MAX_NAME_LENGTH]
            self.set_tags({RUN_NAME_TAG: self.name})

    def note_input(self, parameter: str, found: Input) -> None:
        """Keep what a parameter meant: in tags `fsae.PARAMETER`, `….digest` and `….run`, and for the description."""
        if self.leads:
            self.inputs[parameter] = found
        tag = f"fsae.{parameter}"
        of_run = {f"{tag}.run": found.run_id} if found.run_id else {}
        self.set_tags({tag: found.origin, f"{tag}.digest": found.digest, **of_run})

    def description(self, headline: str = "", picture: str = "", full: str = "") -> str:
        """What the run's page says at its top (Markdown); `full`: the artifact of which `picture` is a smaller copy."""
        return describe_run(
            run_id=self.id,
            stage=self.stage,
            call=self.call,
            inputs=self.inputs,
            metrics=self.logged,
            warnings=self.warnings,
            headline=headline,
            picture=picture,
            full=full,
        )

    def conclude(self, headline: str, *, folder: Path, picture: str = "") -> None:
        """Print the main result, where the files lie, and the page to open; and describe the run.

        `headline`: the main result in one line. `picture`: the artifact, a PNG at the run's root, that matters most.
        """
        if not self.leads:
            return
        shown = self._fitting(self.at_root[picture]) if picture in self.at_root else picture
        self.set_tags({NOTE_TAG: self.description(headline, shown, picture if shown != picture else "")})
        click.echo(f"{self.name}: {headline}\nfiles: {folder.resolve()}\npage: {self.page}")

    def _fitting(self, picture: Path) -> str:
        """The artifact that a description can show: MLflow shows pictures in full size, so a wide one has a copy."""
        with Image.open(picture) as image:
            if image.width <= WIDEST_PICTURE:
                return picture.name
            small = image.convert("RGB")
        small.thumbnail((WIDEST_PICTURE, small.height))
        path = picture.with_name(f"{picture.stem}-small.png")
        small.save(path)
        self.log_path(path)
        return path.name

    @property
    def page(self) -> str:
        """The address of the run's page; of a store without a server, with the command that serves it."""
        store, page = str(mlflow.get_tracking_uri()), page_of(self.experiment_id, self.id)
        if store.startswith(("http://", "https://")):
            return f"{server().rstrip('/')}/{page}"
        serve = shlex.join([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", server()])
        return f"http://127.0.0.1:5000/{page} (start its server: {serve})"
