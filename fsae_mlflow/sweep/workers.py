"""How processes share a study: each takes a trial that nobody has, and repeats those of processes that are gone."""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import optuna
from optuna.trial import TrialState

from fsae_mlflow.errors import UserError
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.study import LISTED

ALIVE = "alive"
HEARTBEAT_SECONDS, GRACE_SECONDS, SECONDS_BETWEEN_LOOKS = 10.0, 60.0, 1.0
MOST_RETRIES, MOST_FAILURES = 3, 3
FIXED = "fixed_params"
"""Where Optuna keeps the values of a trial that was queued."""
TAKEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

logger = logging.getLogger(__name__)


class _NotNeededError(Exception):
    """Other processes have the last trials already."""


def work(
    study: Any, settings: SweepSettings, run_trial: Callable[[Any], Any], *, alone: bool, enough: Callable[[], bool]
) -> None:
    """Run trials until the study has `n_trials` finished ones, of all processes, or the time is over, or `enough()`.

    A process that finds no trial left waits for those that others run, and takes over those of processes that have
    given no sign for a minute. `alone`: no other process has the study, so a trial that runs is a dead process'.

    Raises: what the third trial that fails raises, or the first where none has finished.
    """
    ends = time.monotonic() + settings.minutes * 60 if settings.minutes else float("inf")

    def objective(trial: Any) -> Any:
        before = [one for one in study.get_trials(deepcopy=False, states=TAKEN) if one.number < trial.number]
        if len(before) >= settings.n_trials:
            raise _NotNeededError
        if settings.sampler == "grid" and (LISTED not in trial.user_attrs or _listed_before(study, trial, before)):
            raise _NotNeededError
        nonlocal number, repeated
        number = trial.number
        try:
            # Alone nobody reads it, and two threads that write to one SQLite file can lock each other out.
            with nullcontext() if alone else _heartbeat(trial):
                values = run_trial(trial)
        except Exception:
            repeated = _is_over(study, number)
            raise
        repeated = _is_over(study, number)
        return values

    n_failures, number, repeated = 0, None, False
    while not enough() and time.monotonic() < ends:
        _repeat_lost(study, alone=alone)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        left = settings.sampler != "grid" or TrialState.WAITING in states
        if left and sum(state in TAKEN for state in states) < settings.n_trials:
            number, repeated = None, False  # until the trial begins
            try:
                study.optimize(objective, n_trials=1, catch=(_NotNeededError,))
            except Exception as error:
                if repeated:
                    logger.warning("This process gave no sign for a minute; another one repeats its trial %s.", number)
                    continue
                if not isinstance(error, UserError):
                    raise
                n_failures += 1
                if n_failures == MOST_FAILURES or TrialState.COMPLETE not in states:
                    raise
                logger.warning("A trial failed: %s The search goes on.", error)
            except KeyboardInterrupt:
                if number is not None:
                    _queue_again(study, study.get_trials(deepcopy=False)[number])
                raise
        elif TrialState.RUNNING in states:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        else:
            return


def _is_over(study: Any, number: int) -> bool:
    return study.get_trials(deepcopy=False)[number].state.is_finished()


def _listed_before(study: Any, trial: Any, before: Iterable[Any]) -> bool:
    """Whether an earlier trial has the same values: each of several machines may have listed the grid."""
    values = study.get_trials(deepcopy=False)[trial.number].system_attrs.get(FIXED)
    return any(one.system_attrs.get(FIXED) == values for one in before)


@contextmanager
def _heartbeat(trial: Any) -> Iterator[None]:
    """Write every ten seconds that the trial's process lives. Of Optuna's storages, only databases can do so."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            try:
                trial.set_user_attr(ALIVE, time.time())
            except Exception as error:
                logger.warning("The study's storage does not answer: %s", error)
            if stop.wait(HEARTBEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _repeat_lost(study: Any, *, alone: bool) -> None:
    """Queue the trials of processes that are gone again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        last = max(trial.user_attrs.get(ALIVE, 0.0), trial.datetime_start.timestamp())
        if not alone and time.time() - last < GRACE_SECONDS:
            continue
        try:
            study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            continue  # it has finished, or another process has seen it too
        logger.info("Trial %d was left by its process; it is repeated.", trial.number)
        _queue_again(study, trial)


def _queue_again(study: Any, trial: Any) -> None:
    with warnings.catch_warnings():
        # Optuna calls it experimental since 2.8.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES)
    again(study, trial)
