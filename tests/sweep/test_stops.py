"""Trials that are stopped, or that an error ends."""

import signal
from pathlib import Path
from typing import Any

import optuna
import pytest

from fsae_mlflow.sweep import workers
from fsae_mlflow.templates.set import TemplateSet
from tests.sweep.searching import search, with_trials
from tests.sweep.test_workers import start


def test_a_stopped_trial_is_repeated_first(template_set: TemplateSet, tmp_path: Path) -> None:
    process = start(template_set, n_trials=2, output=tmp_path, epochs=400)
    assert process.stdout is not None and process.stdout.readline() == "trial 0\n"
    process.send_signal(signal.SIGINT)
    process.wait(60)
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]
    assert workers.ALIVE not in study.trials[0].user_attrs  # a second thread could lock this one out of the file
    assert study.trials[0].params == study.trials[1].params or not study.trials[0].params


def test_a_stop_before_a_trial_begins_repeats_none(template_set: TemplateSet, tmp_path: Path) -> None:
    found = search(template_set, n_trials=1, output=str(tmp_path))
    study, asks = found.study, iter([found.study.ask, _stop])
    study.ask = lambda: next(asks)()
    with pytest.raises(KeyboardInterrupt):
        workers.work(study, with_trials(found, 3), lambda _: [0.5], alone=True, enough=lambda: False)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


def test_a_stop_after_a_trial_has_ended_repeats_none(template_set: TemplateSet, tmp_path: Path) -> None:
    found = search(template_set, n_trials=1, output=str(tmp_path))
    study, tell = found.study, found.study.tell

    def stopped(number: int, values: Any = None, state: Any = None) -> None:
        tell(number, values, state)
        if values is not None:
            raise KeyboardInterrupt

    study.tell = stopped
    with pytest.raises(KeyboardInterrupt):
        workers.work(study, with_trials(found, 3), drawing, alone=True, enough=lambda: False)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]


def test_a_trial_that_is_stopped_often_is_repeated(template_set: TemplateSet, tmp_path: Path) -> None:
    found = search(template_set, n_trials=1, output=str(tmp_path))
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            workers.work(found.study, with_trials(found, 2), _draw_and_stop, alone=True, enough=lambda: False)
    workers.work(found.study, with_trials(found, 2), drawing, alone=True, enough=lambda: False)
    states = [trial.state.name for trial in found.study.trials]
    assert states == ["COMPLETE", *5 * ["FAIL"], "COMPLETE"]
    assert len({trial.params["lam"] for trial in found.study.trials[1:]}) == 1


def test_a_trial_that_an_error_ends_is_repeated_three_times(
    template_set: TemplateSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As while the tracking server is away."""
    given: dict[str, Any] = {"sampler": "grid", "space": "lr:0.01|0.02", "variant": "topk", "k": 4}
    found = search(template_set, n_trials=1, output=str(tmp_path), **given)
    for n in range(1, 5):
        with pytest.raises(ConnectionError):
            workers.work(found.study, with_trials(found, 2), _lose, alone=True, enough=lambda: False)
        again = ["WAITING"] if n < 4 else []
        assert [trial.state.name for trial in found.study.trials] == ["COMPLETE", *n * ["FAIL"], *again]
    assert "Trial 4 is not repeated: its processes have ended 4 times." in caplog.text


def drawing(trial: optuna.Trial) -> list[float]:
    trial.suggest_float("lam", 1e-3, 1.0, log=True)
    return [0.5]


def _draw_and_stop(trial: optuna.Trial) -> None:
    drawing(trial)
    raise KeyboardInterrupt


def _lose(_: optuna.Trial) -> None:
    raise ConnectionError


def _stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
