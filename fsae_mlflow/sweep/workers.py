"""How processes share a study: each takes a trial that nobody has, and repeats those of processes that are gone."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import optuna
from optuna.trial import TrialState

from fsae_mlflow.errors import UserError
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.study import FAILED, FIXED, LISTED, MOST_RETRIES, N_LOST

ALIVE = "alive"
"""A trial's user attribute: its last heartbeat."""
HEARTBEAT_SECONDS, GRACE_SECONDS, SECONDS_BETWEEN_LOOKS = 10.0, 60.0, 1.0
MOST_FAILURES = 3
TAKEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

logger = logging.getLogger(__name__)


def work(
    study: Any, settings: SweepSettings, run_trial: Callable[[Any], Any], *, alone: bool, enough: Callable[[], bool]
) -> None:
    """Run trials until the study has `n_trials` finished ones, of all processes, or the time is over, or `enough()`.

    A process that finds no trial left waits for those that others run, and takes over those of processes that have
    sent no heartbeat for a minute. `alone`: no other process has the study, so a trial that runs is a dead process'.

    Raises: what the third trial that fails raises, or the first where none has finished; at once what is no UserError,
    and that trial is queued again.
    """
    ends = time.monotonic() + settings.minutes * 60 if settings.minutes else float("inf")
    heard: dict[int, tuple[Any, float]] = {}
    n_failures = 0
    while not enough() and time.monotonic() < ends:
        _repeat_lost(study, heard, alone=alone)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        left = settings.sampler != "grid" or TrialState.WAITING in states
        if left and sum(state in TAKEN for state in states) < settings.n_trials:
            try:
                _run_next(study, settings, run_trial, alone=alone)
            except UserError as error:
                n_failures += 1
                if n_failures == MOST_FAILURES or TrialState.COMPLETE not in states:
                    raise
                logger.warning("A trial failed: %s The search goes on.", error)
        elif TrialState.RUNNING in states:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        else:
            return


def _run_next(study: Any, settings: SweepSettings, run_trial: Callable[[Any], Any], *, alone: bool) -> None:
    """Run the trial that is queued, or a new one, unless other processes have the last ones already.

    Raises: what `run_trial` raises, unless another process repeats the trial. What is no UserError says nothing about
    the trial's values, so they are queued again.
    """
    trial, ended = study.ask(), True
    try:
        before = [one for one in study.get_trials(deepcopy=False, states=TAKEN) if one.number < trial.number]
        if settings.sampler == "grid" and (LISTED not in trial.user_attrs or _listed_before(study, trial, before)):
            _end(study, trial.number, TrialState.FAIL)
        elif len(before) >= settings.n_trials:
            _end(study, trial.number, TrialState.FAIL)
            _queue_again(study, trial.number)
        else:
            # Alone nobody reads it, and two threads that write to one SQLite file can lock each other out.
            with nullcontext() if alone else _heartbeat(trial):
                values = run_trial(trial)
            ended = _end(study, trial.number, TrialState.COMPLETE, values)
    except optuna.TrialPruned:
        ended = _end(study, trial.number, TrialState.PRUNED)
    except UserError as error:
        with suppress(optuna.exceptions.UpdateFinishedTrialError):
            trial.set_user_attr(FAILED, str(error))
        ended = _end(study, trial.number, TrialState.FAIL)
        if ended:
            raise
    except BaseException as error:
        ended = _end(study, trial.number, TrialState.FAIL)
        if ended:
            _queue_again(study, trial.number, lost=not isinstance(error, KeyboardInterrupt))
        if ended or not isinstance(error, Exception):
            raise
    if not ended:
        logger.warning(
            "This process sent no heartbeat for a minute, so another process repeats its trial %d.", trial.number
        )


def _end(study: Any, number: int, state: TrialState, values: Any = None) -> bool:
    """Store how a trial ended; whether it was still running for the study."""
    try:
        study.tell(number, values, state)
    except json.JSONDecodeError:  # a damaged journal
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


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
            except optuna.exceptions.UpdateFinishedTrialError:  # another process has taken it over
                return
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


def _is_lost(trial: Any, heard: dict[int, tuple[Any, float]]) -> bool:
    """Whether a trial has had the same heartbeat for a minute, by this machine's clock alone: others may differ.

    `heard`: of each trial, its last heartbeat and when this process first saw that one.
    """
    beat, now = trial.user_attrs.get(ALIVE), time.monotonic()
    if trial.number not in heard or heard[trial.number][0] != beat:
        heard[trial.number] = beat, now
    return now - heard[trial.number][1] >= GRACE_SECONDS


def _repeat_lost(study: Any, heard: dict[int, tuple[Any, float]], *, alone: bool) -> None:
    """Queue the trials of processes that are gone again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # It may have finished meanwhile, or another process has seen it too.
        if (alone or _is_lost(trial, heard)) and _end(study, trial.number, TrialState.FAIL):
            logger.info("Trial %d was left by its process.", trial.number)
            _queue_again(study, trial.number, lost=True)


def _queue_again(study: Any, number: int, *, lost: bool = False) -> None:
    """Queue what is known of a trial's values once more, but not for ever where they may be what ends processes."""
    trial = study.get_trials(deepcopy=False)[number]
    n_lost = trial.user_attrs.get(N_LOST, 0) + lost
    if n_lost > MOST_RETRIES:
        logger.warning("Trial %d is not repeated: its processes have ended %d times.", number, n_lost)
    elif trial.params or FIXED in trial.system_attrs:
        again = optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs | {N_LOST: n_lost},
            system_attrs={name: value for name, value in trial.system_attrs.items() if name == FIXED},
        )
        study.add_trial(again)
