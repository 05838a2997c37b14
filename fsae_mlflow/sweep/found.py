"""What a study has found: its finished trials, the front among them, and the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsae_mlflow.report.front import Point
from fsae_mlflow.sweep.objectives import FVU, L0, Objective
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.space import DIGITS

METRICS, CHOSEN, FOLDER, RUN, PARENT = "metrics", "chosen", "folder", "run_id", "parent_run_id"
"""A trial's user attributes: its final metrics, its values with the fixed ones, the name of its SAE's folder, its run,
and that run's parent.
"""
WORST_FVU = 1.0
IN_USE = ".in-use.lock"
"""The lock of the trials' folders: who deletes one that is off the front, or registers one, holds it."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One finished trial; `folder` holds its SAE as long as the trial is on the front, where it was trained here."""

    number: int
    chosen: dict[str, Any]
    metrics: dict[str, float]
    folder: Path
    run_id: str

    def costs(self, axes: Sequence[Objective]) -> tuple[float, ...]:
        """The metrics of the axes, with the sign that makes less better."""
        return _costs(self.metrics, axes)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The finished trials of a study: all, those on the front of the settings' axes, and the best.

    On the front are trials with an fvu below 1, that of the mean template. The best is the one of them that is best by
    the first axis among those with an L0 of at most `max_l0`. `n_pruned` trials more were pruned. `parents` are the
    runs that trained any of them.
    """

    folder: Path
    study: Any
    settings: SweepSettings
    trials: list[TrialResult]
    front: list[TrialResult]
    best: TrialResult | None
    n_pruned: int
    parents: list[str]

    @classmethod
    def of(cls, study: Any, folder: Path, settings: SweepSettings) -> "Sweep":
        """What an Optuna study has found so far."""
        known, axes = study.get_trials(deepcopy=False), settings.axes
        trials = [
            TrialResult(
                number=trial.number,
                chosen=trial.user_attrs[CHOSEN],
                metrics=trial.user_attrs[METRICS],
                folder=folder / trial.user_attrs[FOLDER],
                run_id=trial.user_attrs[RUN],
            )
            for trial in known
            if trial.state.name == "COMPLETE"
        ]
        front: list[TrialResult] = []
        for trial in sorted(trials, key=lambda trial: (trial.costs(axes), trial.number)):
            if _has_room(front, trial.metrics, axes):
                front.append(trial)
        return cls(
            folder=folder,
            study=study,
            settings=settings,
            trials=trials,
            front=front,
            best=next((one for one in front if one.metrics[L0] <= settings.max_l0), None),
            n_pruned=sum(trial.state.name == "PRUNED" for trial in known),
            parents=sorted({trial.user_attrs[PARENT] for trial in known if PARENT in trial.user_attrs}),
        )

    @property
    def headline(self) -> str:
        """The result in a line: the best trial's values and metrics, and how many trials there were."""
        counts = f"{len(self.trials)} trials, {len(self.front)} on the front, {self.n_pruned} pruned"
        if self.best is None:
            return f"no trial within max_l0={self.settings.max_l0:g}; {counts}"
        metrics = ", ".join(f"{axis.name} {self.best.metrics[axis.name]:.4g}" for axis in self.settings.axes)
        return f"best is trial {self.best.number} ({words(self.best.chosen)}): {metrics}; {counts}"

    @property
    def nothing_within(self) -> str:
        """Why no trial is the best, and the way out."""
        limit, useful = self.settings.max_l0, [trial for trial in self.trials if trial.metrics[FVU] < WORST_FVU]
        if not useful:
            return (
                "No trial has an fvu below 1, that of the mean template; take more epochs or templates, a smaller lam "
                "or a larger k."
            )
        nearest = min(useful, key=lambda trial: trial.metrics[L0])
        return (
            f"max_l0={limit:g}: of the trials with an fvu below 1 the smallest L0 is {nearest.metrics[L0]:.4g} "
            f"({words(nearest.chosen)}); take a larger max_l0, a larger lam, a smaller k, or more trials or epochs."
        )

    def has_room_for(self, metrics: Mapping[str, float]) -> bool:
        """Whether a trial with these metrics would be on the front."""
        return _has_room(self.front, metrics, self.settings.axes)

    @property
    def n_since_better(self) -> int:
        """Finished trials since the last one that counts: the best, or, of several objectives, any on the front."""
        counting = [self.best] if len(self.settings.objectives) == 1 else self.front
        last = max((trial.number for trial in counting if trial), default=None)
        return 0 if last is None else sum(trial.number > last for trial in self.trials)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per trial, for a table; the best first, then those on the front."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.chosen))
        return [
            {
                "trial": trial.number,
                "best": trial is self.best,
                "on_front": trial in self.front,
                **{name: trial.chosen.get(name) for name in names},
                **{axis.name: trial.metrics[axis.name] for axis in self.settings.axes},
                "run": trial.run_id,
            }
            for trial in sorted(self.trials, key=lambda one: (one is not self.best, one not in self.front))
        ]

    @property
    def points(self) -> list[Point]:
        """One point per trial, for a figure: the first two axes, named by the trial's number."""
        up, across, *_ = self.settings.axes
        return [
            Point(
                x=trial.metrics[across.name],
                y=trial.metrics[up.name],
                label=str(trial.number),
                on_front=trial in self.front,
                best=trial is self.best,
            )
            for trial in self.trials
        ]


def _costs(metrics: Mapping[str, float], axes: Sequence[Objective]) -> tuple[float, ...]:
    return tuple(axis.cost(metrics[axis.name]) for axis in axes)


def _has_room(front: Sequence[TrialResult], metrics: Mapping[str, float], axes: Sequence[Objective]) -> bool:
    """Whether a trial with these metrics beats the mean template, and no trial of the front dominates it."""
    costs = _costs(metrics, axes)
    return metrics[FVU] < WORST_FVU and not any(dominates(other.costs(axes), costs) for other in front)


def words(chosen: Mapping[str, Any]) -> str:
    """Chosen values in short: "topk k=32 lr=0.00123 ×2"."""
    shown = {name: f"{value:.{DIGITS}g}" if isinstance(value, float) else value for name, value in chosen.items()}
    variant, expansion = ([shown.pop(name)] if name in shown else [] for name in ("variant", "expansion"))
    others = [f"{name}={value}" for name, value in shown.items()]
    return " ".join([*variant, *others, *(f"×{value}" for value in expansion)])


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs are nowhere greater than others; equal costs dominate too."""
    return all(a <= b for a, b in zip(one, other, strict=True))
