"""What a training batch costs to fetch: from memory, and streamed from Parquet through a shuffle window.

python benchmarks/loader.py --templates SET
"""

import argparse
import time

import numpy as np
import torch

from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.templates.set import TemplateSet

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--batch", type=int, default=1024)
    given = parser.parse_args()
    templates = TemplateSet.open(given.templates)
    whole = len(templates) * templates.width * 4
    for name, max_bytes in (("in memory", whole), ("streamed through a third of its size", whole // 3)):
        data = TrainingData(templates, np.ones(len(templates), bool), max_bytes)
        n_batches = sum(1 for _ in data.batches(given.batch, torch.Generator()))
        started = time.perf_counter()
        for _ in range(ROUNDS):
            for _ in data.batches(given.batch, torch.Generator()):
                pass
        seconds = (time.perf_counter() - started) / ROUNDS / n_batches
        print(f"{name}: {1000 * seconds:.2f} ms a batch of {given.batch}")


if __name__ == "__main__":
    main()
