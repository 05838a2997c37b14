"""Small searches for tests, in this process and, as `python -m tests.sweep.searching SET NAME=VALUE …`, in others."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsae_mlflow.parameters import parse
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sweep.found import Sweep
from fsae_mlflow.sweep.settings import SweepSettings
from fsae_mlflow.sweep.stage import TrialRun, sweep
from fsae_mlflow.templates.set import TemplateSet

SMALL: dict[str, Any] = {"epochs": 1, "space": "lam:1e-3..1:log,expansion:1|2", "max_l0": 1000.0}


def search(templates: TemplateSet, ends: list[str] | None = None, **settings: Any) -> Sweep:
    """The sweep of a small search; how each trial ended is added to `ends`."""

    @contextmanager
    def start(number: int, _chosen: dict[str, Any], _settings: TrainSettings) -> Iterator[TrialRun]:
        print(f"trial {number}", flush=True)
        end = ""
        try:
            logs = {"on_epoch": _ignore, "on_metrics": _ignore, "on_sae": _ignore}
            yield TrialRun(id=f"{os.getpid()}-{number}", parent=str(os.getpid()), **logs)
        except BaseException as error:
            end = str(error)
            raise
        finally:
            if ends is not None:
                ends.append(end)

    parsed = parse(SweepSettings, SMALL | settings)
    return sweep(parsed, templates=templates, start_run=start, journals=lambda: Path(parsed.output).glob("unlogged-*"))


def with_trials(found: Sweep, n_trials: int) -> SweepSettings:
    """The settings of a search with another number of trials."""
    return SweepSettings(**{**vars(found.settings), "n_trials": n_trials})


def _ignore(*_: object) -> None:
    pass


if __name__ == "__main__":
    search(TemplateSet.open(Path(sys.argv[1])), **dict(word.split("=", 1) for word in sys.argv[2:]))
