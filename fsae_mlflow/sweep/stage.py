"""What a sweep searches and scores: sparsity λ and expansion against held-out error and L0 (Optuna)."""

import dataclasses
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from fsae_mlflow.parameters import EXECUTION, settings
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.report.front import Point
from fsae_mlflow.sae.training.settings import TrainSettings

L0_LIMIT = "l0_above_limit"


@settings
class SweepSettings:
    """A search over λ (log scale) and expansion; the same settings on the same templates go on with the same study."""

    templates: Annotated[
        str, "Template set to train on: a folder, a run id, or `latest` of the experiment.", EXECUTION
    ] = "latest"
    n_trials: Annotated[
        int, "Trials the study has in the end, those of earlier calls counted in.", Ge(1), EXECUTION
    ] = 12
    objective: Annotated[
        Literal["fvu", "pareto"],
        "`fvu`: least held-out fvu with L0 at most max_l0; `pareto`: fvu and L0 both, as a front.",
    ] = "fvu"
    max_l0: Annotated[float, "Largest mean number of active features of a feasible trial.", Gt(0)] = 105.0
    lam_min: Annotated[float, "Lower end of the search for λ.", Gt(0)] = 1e-3
    lam_max: Annotated[float, "Upper end of the search for λ.", Gt(0)] = 1.0
    expansions: Annotated[str, "Expansion factors to choose from, separated by commas."] = "4,8,16"
    epochs: Annotated[int, "Epochs of each trial.", Ge(1)] = 100
    lr: Annotated[float, "AdamW's initial learning rate of each trial.", Gt(0)] = 1e-3
    batch_size: Annotated[int, "Templates per step of each trial.", Ge(1)] = 256
    holdout: Annotated[float, "Share of the identities held out; trials are scored on them.", Gt(0), Lt(1)] = 0.1
    register: Annotated[bool, "Whether to register the best SAE under the alias `champion`.", EXECUTION] = True
    model_name: Annotated[str, "Its name in the MLflow model registry.", EXECUTION] = "fsae"
    seed: Annotated[int, "Seed of the search and of every training.", Ge(0)] = 0
    device: Annotated[str, "Where to train: auto, cpu, cuda, cuda:1, …", EXECUTION] = "auto"
    output: Annotated[str, "Folder of studies and their SAEs.", EXECUTION] = "outputs/sweep"

    def check(self) -> None:
        """Rules that join fields.

        Raises: ValueError for an empty λ range or expansions that are not positive integers.
        """
        if self.lam_max < self.lam_min:
            raise ValueError(f"lam_max must be at least lam_min ({self.lam_min}); it is {self.lam_max}.")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in self.expansions.split(",")):
            raise ValueError(f"expansions must be positive integers separated by commas; it is {self.expansions!r}.")

    def trial(self, lam: float, expansion: int) -> TrainSettings:
        """The training of one trial."""
        shared = {field.name for field in dataclasses.fields(TrainSettings)} & set(dataclasses.asdict(self))
        return TrainSettings(
            **{name: getattr(self, name) for name in shared - {"output"}},
            lam=lam,
            expansion=expansion,
        )


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One finished trial; `folder` holds its SAE as long as it is on the front of held-out fvu against L0."""

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
    """All finished trials of a study, the front of fvu against L0, and the best trial within the L0 limit, if any."""

    trials: list[TrialResult]
    front: list[TrialResult]
    best: TrialResult | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One line a trial, for a table."""
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
        """One point a trial, for a figure."""
        return [
            Point(l0=t.l0, fvu=t.fvu, label=f"×{t.expansion}", on_front=t in self.front, best=t is self.best)
            for t in self.trials
        ]


TrialRun = Callable[[int, TrainSettings], AbstractContextManager[OnMetrics]]


def sweep(settings: SweepSettings, *, templates: Any, trial_run: TrialRun) -> Sweep:
    """Search until the study has `n_trials` finished trials, and give what it found.

    The study lives in a SQLite file under `output`, named by a hash of the search and the templates, so the same
    command resumes it. Each trial happens inside `trial_run(number, settings)`.
    """
    import optuna

    from fsae_mlflow.sae.training.stage import train

    folder = Path(settings.output) / _fingerprint(settings, templates.digest)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        # Heartbeats have been "experimental" since Optuna 2.9; a killed trial is run again thanks to them.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{folder / 'study.db'}",
            heartbeat_interval=30,
            grace_period=90,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1),
        )
    directions: list[Literal["minimize"]] = ["minimize"] * (1 if settings.objective == "fvu" else 2)
    study = optuna.create_study(storage=storage, study_name="sweep", directions=directions, load_if_exists=True)
    # A seed that moves on with the study: a resumed search must not draw its first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials))

    def run_trial(trial: optuna.Trial) -> float | tuple[float, float]:
        expansion = trial.suggest_categorical("expansion", [int(part) for part in settings.expansions.split(",")])
        chosen = settings.trial(trial.suggest_float("lam", settings.lam_min, settings.lam_max, log=True), expansion)
        with trial_run(trial.number, chosen) as on_metrics:
            trained = train(
                chosen, templates=templates, output=folder / f"trial-{trial.number:04d}", on_metrics=on_metrics
            )
            on_metrics(trained.metrics, chosen.epochs)
        trial.set_user_attr("metrics", trained.metrics)
        fvu, l0 = trained.metrics["heldout/fvu"], trained.metrics["heldout/l0"]
        if settings.objective == "fvu":
            trial.set_constraint(L0_LIMIT, l0 - settings.max_l0)
        return fvu if settings.objective == "fvu" else (fvu, l0)

    def tidy(*_: Any) -> None:
        kept = {result.folder for result in _summary(study, folder, settings.max_l0).front}
        for finished in _finished(study, folder):
            if finished.folder not in kept:
                shutil.rmtree(finished.folder, ignore_errors=True)

    remaining = settings.n_trials - len(_finished(study, folder))
    if remaining > 0:
        study.optimize(run_trial, n_trials=remaining, callbacks=[tidy])
    return _summary(study, folder, settings.max_l0)


def _fingerprint(settings: SweepSettings, digest: str) -> str:
    # How many trials, where and under which model name do not change what is searched.
    searched = dataclasses.asdict(settings)
    for name in ("templates", "n_trials", "output", "device", "register", "model_name"):
        searched.pop(name)
    return hashlib.sha256(json.dumps({**searched, "digest": digest}, sort_keys=True).encode()).hexdigest()[:12]


def _finished(study: Any, folder: Path) -> list[TrialResult]:
    return [
        TrialResult(
            number=trial.number,
            **trial.params,
            metrics=trial.user_attrs["metrics"],
            folder=folder / f"trial-{trial.number:04d}",
        )
        for trial in study.get_trials(deepcopy=False)
        if "metrics" in trial.user_attrs and trial.values
    ]


def _summary(study: Any, folder: Path, max_l0: float) -> Sweep:
    trials = sorted(_finished(study, folder), key=lambda trial: trial.fvu)
    front, least = [], float("inf")
    for trial in trials:
        if trial.l0 < least:
            front.append(trial)
            least = trial.l0
    best = next((trial for trial in trials if trial.l0 <= max_l0), None)
    return Sweep(trials=sorted(trials, key=lambda trial: trial.number), front=front, best=best)
