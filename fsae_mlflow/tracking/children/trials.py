"""The runs of a sweep: one nested in it for each trial, and what the sweep's own run says of the study."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from mlflow.exceptions import MlflowException

from fsae_mlflow.parameters import deciding, flat, parse
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import WEIGHTS, digest, load_sae
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sweep.figures import write_figures
from fsae_mlflow.sweep.found import IN_USE, Sweep, TrialResult, words
from fsae_mlflow.sweep.stage import StartRun, TrialRun
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.tracking.data.inputs import find_sae, share_templates
from fsae_mlflow.tracking.description import NOTE_TAG, Call, Input
from fsae_mlflow.tracking.models.logged import versions_of
from fsae_mlflow.tracking.registry import log_sae, register_sae
from fsae_mlflow.tracking.runs.answers import is_refusal, patiently, said
from fsae_mlflow.tracking.runs.lifecycle import Run, nested_run

if TYPE_CHECKING:
    from fsae_mlflow.tracking.models.embedded import EmbeddableRecognizer

STUDY_TAG, RUNS_TAG, BEST_TAG, FRONT_TAG = "fsae.study", "fsae.study_runs", "fsae.best_trial", "fsae.front"
IS_BEST_TAG, ON_FRONT_TAG = "fsae.best", "fsae.on_front"
REGISTRATION_SECONDS = 60
MOST_LINKED = 12

logger = logging.getLogger(__name__)


def trial_runs(run: Run, templates: TemplateSet) -> StartRun:
    """What starts the run of a trial, nested in `run`.

    Its name and parameters are what was chosen, with log10 of λ, for axes that are not logarithmic; config.json has
    all settings. A trial that is on the front when it ends has its SAE as artifact, for `sae=RUN_ID`.
    """

    @contextmanager
    def start(number: int, chosen: dict[str, Any], settings: TrainSettings) -> Iterator[TrialRun]:
        call = Call(about=f"Trial {number} of a sweep.", given=_given(settings), entry="train_sae")
        with nested_run(run, f"{number} {words(chosen)}", stage="trial", call=call) as child:
            logs = {"log10_lam": math.log10(chosen["lam"])} if chosen.get("lam") else {}
            child.log_params(chosen | logs | {"trial": number})
            child.log_json(flat(settings), "config.json")
            share_templates(run, child, templates, context="training")
            yield TrialRun(
                id=child.id,
                parent=run.id,
                on_epoch=child.on_epoch,
                on_metrics=child.under("train"),
                on_sae=partial(log_sae, child),
            )
            child.set_tags({NOTE_TAG: child.description(words(chosen))})

    return start


def log_sweep(run: Run, found: Sweep) -> None:
    """Log the trials as a table, the figures, and tags that name the study, all runs that worked on it, the run of the
    best trial, and those of the front; the description links them. The trials' own runs say in tags whether they are
    the best or on the front.
    """
    run.log_table(found.rows, "trials.json")
    for path in write_figures(found, found.folder / run.id):
        run.log_path(path)
    tags = {
        STUDY_TAG: found.study.study_name,
        RUNS_TAG: ",".join(found.parents),
        FRONT_TAG: ",".join(trial.run_id for trial in found.front),
    }
    for trial in found.trials:
        places = {ON_FRONT_TAG: trial in found.front, IS_BEST_TAG: trial is found.best}
        run.tag_run(trial.run_id, {name: "yes" if value else "no" for name, value in places.items()})
    for other in found.parents:
        if other != run.id:
            run.tag_run(other, {RUNS_TAG: tags[RUNS_TAG]})
    run.set_tags(tags | ({BEST_TAG: found.best.run_id} if found.best else {}))
    _link_runs(run, found)


def _link_runs(run: Run, found: Sweep) -> None:
    """Link the best trials, and the study's other runs, in the description, as far as the server knows them."""
    links = {"trial.best": found.best.run_id} if found.best else {}
    links |= {f"trial.{trial.number}": trial.run_id for trial in found.front if trial is not found.best}
    links |= {f"sweep.{number}": other for number, other in enumerate(found.parents) if other != run.id}
    for name, run_id in [*links.items()][:MOST_LINKED]:
        try:
            linked = patiently(partial(run.client.get_run, run_id)).info
        except (MlflowException, OSError) as error:
            logger.warning("%s: run %s is not linked: %s", name, run_id, said(error))
            if is_refusal(error):  # it was deleted
                continue
            return
        run.inputs[name] = Input.of_run(linked)


def log_best(
    run: Run, best: TrialResult, *, name: str, max_l0: float, recognizer: "EmbeddableRecognizer | None" = None
) -> SparseAutoencoder:
    """Log the best trial's values, metrics and SAE, register the SAE as `name` (`max_l0`: the search's limit) with the
    `recognizer` that is given, and return it.

    Of several processes on one machine each waits for the others here, so that nothing is registered twice. One on
    another machine than the best SAE was trained on leaves the registration to that machine for a minute.
    """
    run.log_params(best.chosen)
    run.under("train")(best.metrics, 0)
    with FileLock(best.folder.parent / IN_USE):
        here = (best.folder / WEIGHTS).is_file()
        folder = best.folder if here else find_sae(run, best.run_id)
        log_sae(run, folder)
        sae = load_sae(folder)
        if here or not _registered_meanwhile(run, digest(folder), name):
            register_sae(run, sae, folder, name=name, max_l0=max_l0, recognizer=recognizer)
    return sae


def _registered_meanwhile(run: Run, weights: str, name: str) -> bool:
    """Whether the SAE of these weights is a version of `name` within a minute; without a name nobody registers it."""
    until = time.monotonic() + REGISTRATION_SECONDS
    while name and not any(one.name == name for one in patiently(lambda: [*versions_of(run.client, weights)])):
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


def _given(settings: TrainSettings) -> dict[str, Any]:
    """The values of a training that differ from the defaults of its variant."""
    usual = flat(parse(TrainSettings, {"variant": flat(settings)["variant"]}))
    values = {name: value for name, value in deciding(settings).items() if value != usual[name]}
    return {"variant": flat(settings)["variant"]} | values | {"register": False}
