"""How much sooner several processes finish a study than one does, with the same number of trials.

    python benchmarks/sweep.py --templates TEMPLATES
    python benchmarks/sweep.py --templates TEMPLATES --workers 4 --storage postgresql://USER:PASSWORD@HOST/DATABASE

Each process trains on one core, in a new folder and MLflow store. The trials differ in the seed only, because the time
of a training depends on how sparse it is. Prints the seconds of one process, those of --workers, and their ratio, from
the start of the commands to the end of the last one. It needs as many free cores as workers: on a busy machine the
ratio says nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--storage", default="journal")
    parser.add_argument("--n_trials", type=int, default=8)
    parser.add_argument("--space", default="lam:0.1,expansion:2,seed:0..99999")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    one, several = (_seconds(options, n) for n in (1, options.workers))
    print(json.dumps({"one": one, "workers": options.workers, "several": several, "ratio": several / one}))


def _seconds(options: argparse.Namespace, n_workers: int) -> float:
    # Another number of workers is another study: without a folder of its own it would find all trials finished.
    given = {
        "templates": Path(options.templates).resolve(),
        "storage": options.storage,
        "n_trials": options.n_trials,
        "space": options.space,
        "epochs": options.epochs,
        "sampler": "random",
        "seed": n_workers,
        "max_l0": 1e6,
        "register": "false",
        "describe": "false",
    }
    words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        command = [sys.executable, "-m", "entrypoints.sweep", *words, "--output", f"{folder}/study"]
        started = time.monotonic()
        processes = [subprocess.Popen(command, cwd=ROOT, env=environment) for _ in range(n_workers)]
        if failed := [process.wait() for process in processes if process.wait()]:
            raise SystemExit(f"{len(failed)} of {n_workers} processes failed.")
        return time.monotonic() - started


if __name__ == "__main__":
    main()
