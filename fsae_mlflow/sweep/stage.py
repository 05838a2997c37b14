"""The stage: a template set → the trials of a search, each a training, and the best of them."""

import logging
import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock

from fsae_mlflow.errors import StoppedError, UserError
from fsae_mlflow.files.documents import names_folder
from fsae_mlflow.files.locks import has_writer, only_writer
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.parameters import deciding, fingerprint, output_folder
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import require_room, train
from fsae_mlflow.sweep.found import CHOSEN, FOLDER, IN_USE, METRICS, PARENT, RUN, Sweep, words
from fsae_mlflow.sweep.objectives import L0, measured
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.storage import SQLITE, answering
from fsae_mlflow.sweep.study import claim, open_study
from fsae_mlflow.sweep.workers import work

CONSTRAINT = "l0_above_limit"
WORSE_THAN_ALL = 1e6

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrialRun:
    """The run of one trial: its id and its parent's, and what logs its metrics after an epoch, its final ones, and the
    SAE in a folder.
    """

    id: str
    parent: str
    on_epoch: OnMetrics
    on_metrics: OnMetrics
    on_sae: Callable[[Path], None]


StartRun = Callable[[int, dict[str, Any], TrainSettings], AbstractContextManager[TrialRun]]
"""Starts the run of a trial, of which it is told the number, the chosen values and the settings."""


def sweep(
    settings: SweepSettings, *, templates: Any, start_run: StartRun, journals: Callable[[], Iterable[Path]]
) -> Sweep:
    """Run trials until the study has `n_trials` finished ones, and return what it found.

    The study is kept in the settings' storage, and the SAEs on the front in `output` or, without one, in
    outputs/sweep/FINGERPRINT, so that the same command continues it. Processes of one study share the trials. An SAE
    that has left the front is removed, unless one of the `journals` of what is still to be logged names its folder.

    Raises: UserError under torchrun, where `output` holds the study of another search, where a second process has the
    study of a storage for one, where the storage cannot be opened, and for an expansion too large for the machine.
    """
    if not Ranks.of_environment().alone:
        raise UserError(
            "sweep does not run under torchrun, where every process would begin the same search; start it without, "
            "once for each process, with storage=journal: they share the trials."
        )
    search, alone = settings.search, settings.storage == SQLITE
    require_room(int(search.largest("expansion")), templates)
    name = fingerprint(deciding(settings) | {"digest": templates.digest})
    folder = output_folder("sweep", settings.output, name)
    folder.mkdir(parents=True, exist_ok=True)

    def is_named(one: Path) -> bool:
        return any(names_folder(journal, one) for journal in journals())

    def enough() -> bool:
        found = Sweep.of(study, folder, settings)
        with FileLock(folder / IN_USE):
            for trial in found.trials:
                if trial not in found.front and trial.folder.exists() and not is_named(trial.folder):
                    shutil.rmtree(trial.folder, ignore_errors=True)
        return 0 < settings.patience <= found.n_since_better

    instead = "give every process of this study storage=journal and another output"
    with answering(settings.storage), only_writer(folder, instead=instead) if alone else nullcontext():
        claim(folder, name, settings.storage)
        study = open_study(settings, folder, name)
        work(
            study,
            settings,
            lambda trial: _run(trial, study, settings, templates, folder, start_run),
            alone=alone,
            enough=enough,
        )
        return Sweep.of(study, folder, settings)


def _run(
    trial: optuna.Trial, study: optuna.Study, settings: SweepSettings, templates: Any, folder: Path, start_run: StartRun
) -> list[float]:
    """Train one trial, and return the values of its objectives."""
    chosen = settings.search.chosen(trial)
    of_trial = settings.search.settings(chosen)
    # A trial that repeats that of a lost process has its attributes, and goes on in its folder, unless that process was
    # only stopped for a time and is there again.
    output = folder / trial.user_attrs.get(FOLDER, f"trial-{trial.number:04d}")
    if has_writer(output):
        output = folder / f"trial-{trial.number:04d}"
    for name, value in ((CHOSEN, chosen), (FOLDER, output.name)):
        trial.set_user_attr(name, value)
    try:
        with start_run(trial.number, chosen, of_trial) as run:
            trial.set_user_attr(RUN, run.id)
            trial.set_user_attr(PARENT, run.parent)

            def on_epoch(metrics: dict[str, float], epoch: int) -> None:
                run.on_epoch(metrics, epoch)
                _prune(trial, settings, metrics, epoch)

            trained = train(
                of_trial, templates=templates, output=output, on_metrics=on_epoch, label=f"trial {trial.number}"
            )
            metrics = trained.metrics | measured(
                settings.objectives, sae=trained.sae, templates=templates, settings=of_trial
            )
            run.on_metrics(metrics, 0)
            for objective in settings.objectives:
                if not math.isfinite(metrics[objective.name]):
                    raise UserError(f"objective: {objective.name} of trial {trial.number} is not a finite number.")
            if Sweep.of(study, folder, settings).has_room_for(metrics):
                run.on_sae(output)
    except StoppedError as reason:
        shutil.rmtree(output, ignore_errors=True)
        logger.info("trial %d (%s): %s", trial.number, words(chosen), reason)
        raise optuna.TrialPruned(str(reason)) from reason
    trial.set_user_attr(METRICS, metrics)
    told = ", ".join(f"{axis.name} {metrics[axis.name]:.4g}" for axis in settings.axes)
    logger.info("trial %d (%s): %s", trial.number, words(chosen), told)
    _keep_to_limit(trial, settings, metrics)
    return [metrics[objective.name] for objective in settings.objectives]


def _keep_to_limit(trial: optuna.Trial, settings: SweepSettings, metrics: dict[str, float]) -> None:
    if len(settings.objectives) == 1:
        trial.set_constraint(CONSTRAINT, metrics[L0] - settings.max_l0)


def _prune(trial: optuna.Trial, settings: SweepSettings, metrics: dict[str, float], epoch: int) -> None:
    """Report an epoch where a pruner asks for it.

    Raises: StoppedError where the pruner ends the trial.
    """
    if settings.pruner == "none":
        return
    objective, excess = settings.objectives[0], metrics[L0] / settings.max_l0
    # Above the limit on L0 any trial is worse than one within it, the more so the farther above.
    cost = objective.cost(metrics[objective.name]) if excess <= 1 else WORSE_THAN_ALL * excess
    trial.report(objective.cost(cost), epoch)
    if trial.should_prune():
        _keep_to_limit(trial, settings, metrics)
        raise StoppedError(f"pruned after epoch {epoch} of {settings.epochs} by pruner={settings.pruner}")
