"""The Optuna study of a sweep: one for each search, wherever it is kept."""

import json
import os
import socket
import warnings
import zlib
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import TrialState

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.storage import SQLITE, kind_of, open_storage

FINGERPRINT, STUDY = "fingerprint", "study.json"
LISTED, FAILED, N_LOST = "listed", "failed", "n_lost"
"""A trial's user attributes: whether it is of the grid, why its values cannot be trained, and how often its processes
have ended within it.
"""
MOST_RETRIES = 3
FIXED = "fixed_params"
"""Where Optuna keeps the values of a trial that was queued."""


def claim(folder: Path, fingerprint: str, storage: str) -> None:
    """Note whose trials lie in `folder`.

    Raises: UserError where it holds those of another search, or of this one in another storage.
    """
    marker = folder / STUDY
    mine = {FINGERPRINT: fingerprint, "storage": kind_of(storage)}
    with FileLock(folder / ".study.lock"):
        former = json.loads(marker.read_text()) if marker.is_file() else None
        if former is None and not (folder / "study.db").exists():
            with atomic_write(marker) as temporary:
                temporary.write_text(json.dumps(mine))
        elif former is None or former[FINGERPRINT] != fingerprint:
            raise UserError(
                f"output: {folder} holds the study of another search (other settings, templates or version); choose "
                "another folder, or leave output empty."
            )
        elif former != mine:
            raise UserError(
                f"storage: the study in {folder} is kept in {former['storage']}; give storage={former['storage']} to "
                "continue it, or another output to begin again."
            )


def open_study(settings: SweepSettings, folder: Path, fingerprint: str) -> Any:
    """The study of this search, a new one if there is none, with the sampler and the pruner that the settings name.

    Raises: UserError where the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=open_storage(settings.storage, folder),
        study_name=f"sweep-{fingerprint}",
        directions=[objective.direction for objective in settings.objectives],
        load_if_exists=True,
    )
    with warnings.catch_warnings():
        # Optuna calls it experimental since 3.2.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.name for objective in settings.objectives])
    study.sampler = _sampler(settings, len(study.get_trials(deepcopy=False)))
    study.pruner = _pruner(settings)
    if settings.sampler == "grid":
        with FileLock(folder / ".study.lock"):
            known = [trial.system_attrs.get(FIXED) for trial in study.get_trials(deepcopy=False) if _counts(trial)]
            for values in settings.search.grid():
                if values not in known:
                    study.enqueue_trial(values, user_attrs={LISTED: True})
    return study


def _counts(trial: Any) -> bool:
    """Whether a trial of a grid is tried, or to be; not one whose process was killed before it was queued again."""
    given_up = FAILED in trial.user_attrs or trial.user_attrs.get(N_LOST, 0) >= MOST_RETRIES
    return given_up or trial.state != TrialState.FAIL


def _sampler(settings: SweepSettings, n_before: int) -> optuna.samplers.BaseSampler:
    # A continued search, and each of several workers, needs a seed of its own, or it would draw what was drawn before.
    worker = "" if settings.storage == SQLITE else f"{socket.gethostname()}:{os.getpid()}"
    seed = (settings.seed + n_before + zlib.crc32(worker.encode())) % 2**32
    if settings.sampler == "tpe":
        # A running trial counts as a bad one, so that workers draw apart.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=settings.storage != SQLITE)
    if settings.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(settings: SweepSettings) -> optuna.pruners.BasePruner:
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=settings.epochs // 2)
    if settings.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, settings.epochs // 8), reduction_factor=2)
    return optuna.pruners.NopPruner()
