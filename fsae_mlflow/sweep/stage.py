"""The study of a sweep (Optuna): trials over λ and expansion, scored by held-out fvu and L0."""

import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fsae_mlflow.errors import UserError
from fsae_mlflow.locks import only_writer
from fsae_mlflow.parameters import deciding, fingerprint, output_folder
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.report.front import Point
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sweep.settings import SweepSettings

L0_LIMIT = "l0_above_limit"
FINGERPRINT = "fingerprint"

TrialRun = Callable[[int, TrainSettings], AbstractContextManager[OnMetrics]]


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One finished trial; `folder` holds its SAE as long as the trial is on the front of held-out fvu against L0."""

    number: int
    lam: float
    expansion: int
    metrics: dict[str, float]
    folder: Path

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained on held-out identities."""
        return self.metrics["heldout/fvu"]

    @property
    def l0(self) -> float:
        """Mean number of active features on held-out identities."""
        return self.metrics["heldout/l0"]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The finished trials of a study: all, those on the front of fvu against L0, and the best within the L0 limit."""

    folder: Path
    trials: list[TrialResult]
    front: list[TrialResult]
    best: TrialResult | None

    @classmethod
    def of(cls, study: Any, folder: Path, max_l0: float) -> "Sweep":
        """What an Optuna study has found so far."""
        trials = _finished(study, folder)
        front: list[TrialResult] = []
        for trial in sorted(trials, key=lambda trial: trial.fvu):
            if not front or trial.l0 < front[-1].l0:
                front.append(trial)
        best = next((trial for trial in front if trial.l0 <= max_l0), None)
        return cls(folder=folder, trials=trials, front=front, best=best)

    @property
    def headline(self) -> str:
        """How many trials there are, and the best one."""
        if self.best is None:
            return f"{len(self.trials)} trials, none within the L0 limit"
        found = f"fvu {self.best.fvu:.3g} and L0 {self.best.l0:.3g} on held-out people"
        return f"trial {self.best.number} of {len(self.trials)} is best: {found}"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per trial, for a table."""
        return [
            {
                "trial": t.number,
                "lam": t.lam,
                "expansion": t.expansion,
                "l0": t.l0,
                "fvu": t.fvu,
                "on_front": t in self.front,
            }
            for t in self.trials
        ]

    @property
    def points(self) -> list[Point]:
        """One point per trial, for a figure."""
        return [
            Point(l0=t.l0, fvu=t.fvu, label=f"×{t.expansion}", on_front=t in self.front, best=t is self.best)
            for t in self.trials
        ]


def sweep(settings: SweepSettings, *, templates: Any, trial_run: TrialRun) -> Sweep:
    """Run trials until the study has `n_trials` finished ones, and return what it found.

    The study is a SQLite file in `output` or, without one, in outputs/sweep/FINGERPRINT, so that the same command
    continues it. Each trial is trained inside `trial_run(number, settings)`.

    Raises: UserError where `output` holds the study of another search, or another process writes to it, and for an
    expansion too large for the machine.
    """
    from fsae_mlflow.sae.training.stage import require_room

    require_room(settings.trial(settings.lam_min, max(settings.expansion_list)), templates)
    name = fingerprint(deciding(settings) | {"digest": templates.digest})
    folder = output_folder("sweep", settings.output, name)
    with only_writer(folder):
        return _search(settings, templates, folder, name, trial_run)


def _search(settings: SweepSettings, templates: Any, folder: Path, name: str, trial_run: TrialRun) -> Sweep:
    from fsae_mlflow.sae.training.stage import train

    study = _open_study(folder, name, settings)

    def run_trial(trial: Any) -> float | tuple[float, float]:
        expansion = trial.suggest_categorical("expansion", settings.expansion_list)
        chosen = settings.trial(trial.suggest_float("lam", settings.lam_min, settings.lam_max, log=True), expansion)
        with trial_run(trial.number, chosen) as on_metrics:
            output, label = _trial_folder(folder, trial), f"trial {trial.number}"
            trained = train(chosen, templates=templates, output=output, on_metrics=on_metrics, label=label)
            on_metrics(trained.metrics, chosen.epochs)
        trial.set_user_attr("metrics", trained.metrics)
        fvu, l0 = trained.metrics["heldout/fvu"], trained.metrics["heldout/l0"]
        if settings.objective == "pareto":
            return fvu, l0
        trial.set_constraint(L0_LIMIT, l0 - settings.max_l0)
        return fvu

    def remove_weak_saes(*_: Any) -> None:
        found = Sweep.of(study, folder, settings.max_l0)
        for result in found.trials:
            if result not in found.front:
                shutil.rmtree(result.folder, ignore_errors=True)

    remaining = settings.n_trials - len(_finished(study, folder))
    if remaining > 0:
        study.optimize(run_trial, n_trials=remaining, callbacks=[remove_weak_saes])
    return Sweep.of(study, folder, settings.max_l0)


def _open_study(folder: Path, name: str, settings: SweepSettings) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        # Optuna calls heartbeats experimental since 2.9. They let a later call repeat a trial whose process was killed.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{folder / 'study.db'}",
            heartbeat_interval=30,
            grace_period=90,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1),
        )
    directions: list[Literal["minimize"]] = ["minimize"] * (1 if settings.objective == "fvu" else 2)
    study = optuna.create_study(storage=storage, study_name="sweep", directions=directions, load_if_exists=True)
    # Studies of version 0.1 have no fingerprint.
    if study.user_attrs.get(FINGERPRINT, name) != name:
        raise UserError(
            f"output: {folder} holds the study of another search (other settings or templates); "
            "choose another folder, or leave output empty."
        )
    study.set_user_attr(FINGERPRINT, name)
    # A continued search needs another seed, or it would draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials))
    return study


def _finished(study: Any, folder: Path) -> list[TrialResult]:
    return [
        TrialResult(number=trial.number, **trial.params, metrics=metrics, folder=_trial_folder(folder, trial))
        for trial in study.get_trials(deepcopy=False)
        # Version 0.1 named the metrics "figures".
        if (metrics := trial.user_attrs.get("metrics", trial.user_attrs.get("figures"))) and trial.values
    ]


def _trial_folder(folder: Path, trial: Any) -> Path:
    return folder / f"trial-{trial.number:04d}"
