"""Train SAE variants on one template set and compare them on people never seen; one line of JSON a training.

    python benchmarks/sae_variants.py --templates SET "variant=topk k=32 lr=1e-3" "variant=gated lam=0.2" …

Each argument is one training: settings of TrainSettings as key=value. Settings are chosen by the held-out columns;
--lfw_templates and --lfw_pairs add LFW's accuracy, to be read once, for what was chosen. `pca=32` is a
control: so many principal components.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fsae_mlflow.parameters import options
from fsae_mlflow.sae.settings import TrainSettings
from fsae_mlflow.sae.split import holdout_rows
from fsae_mlflow.sae.training import train
from fsae_mlflow.templates import TemplateSet
from fsae_mlflow.verification.pairs import find_rows, make_pairs, read_pairs
from fsae_mlflow.verification.protocol import cross_validate, squared_distances

Decoder = Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--lfw_templates")
    parser.add_argument("--lfw_pairs")
    parser.add_argument("--output", default="outputs/sae_variants.jsonl")
    parser.add_argument("--keep", help="Folder to keep the trained SAEs in.")
    parser.add_argument("trainings", nargs="+")
    given = parser.parse_args()
    templates = TemplateSet.open(given.templates)
    lfw = (TemplateSet.open(given.lfw_templates), Path(given.lfw_pairs)) if given.lfw_templates else None
    Path(given.output).parent.mkdir(parents=True, exist_ok=True)
    for line in given.trainings:
        chosen = dict(word.split("=", 1) for word in line.split())
        started = time.monotonic()
        decode, figures = pca(chosen, templates) if "pca" in chosen else trained(chosen, templates, given.keep)
        result = {
            "training": line,
            **figures,
            **verified(decode, templates, lfw),
            "seconds": time.monotonic() - started,
        }
        print(
            json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in result.items()}),
            flush=True,
        )
        with Path(given.output).open("a") as file:
            file.write(json.dumps(result) + "\n")


def typed(chosen: dict[str, str]) -> dict[str, Any]:
    """Settings from their spelling."""
    kinds = {option.name: option.type for option in options(TrainSettings)}
    return {name: value == "True" if kinds[name] is bool else kinds[name](value) for name, value in chosen.items()}


def trained(chosen: dict[str, str], templates: TemplateSet, keep: str | None) -> tuple[Decoder, dict[str, float]]:
    settings = TrainSettings(**{**typed({"holdout": "0.1"}), **typed(chosen)})
    with tempfile.TemporaryDirectory() as folder:
        output = Path(keep or folder) / "-".join(f"{name}={value}" for name, value in chosen.items())
        result = train(settings, templates=templates, output=output, on_metrics=lambda *_: None)
    wanted = (
        "train/fvu",
        "heldout/fvu",
        "heldout/l0",
        "heldout/cosine",
        "train/alive",
        "train/l0",
        "templates_per_second",
    )

    def decode(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([result.sae(batch) for batch in torch.from_numpy(x).split(1024)]).numpy()

    return decode, {name: result.figures[name] for name in wanted}


def pca(chosen: dict[str, str], templates: TemplateSet) -> tuple[Decoder, dict[str, float]]:
    """As many principal components of the training templates as the SAE's features fire."""
    held = holdout_rows(templates.identities, 0.1, seed=int(chosen.get("seed", 0)))
    x = templates.templates[~held].astype(np.float64)
    mean = x.mean(axis=0)
    basis = np.linalg.svd(x - mean, full_matrices=False)[2][: int(chosen["pca"])]

    def decode(rows: np.ndarray) -> np.ndarray:
        return (mean + (rows - mean) @ basis.T @ basis).astype(np.float32)

    figures = {}
    for name, rows in (("train", templates.templates[~held]), ("heldout", templates.templates[held])):
        error = np.square(rows - decode(rows), dtype=np.float64).sum()
        figures[f"{name}/fvu"] = float(error / np.square(rows - rows.mean(axis=0), dtype=np.float64).sum())
    return decode, figures | {"heldout/l0": float(chosen["pca"])}


def verified(decode: Decoder, templates: TemplateSet, lfw: tuple[TemplateSet, Path] | None) -> dict[str, float]:
    """Verification accuracy of decoded templates, beside the originals', on held-out people's pairs and on LFW."""
    held = np.flatnonzero(holdout_rows(templates.identities, 0.1, seed=0))
    ids = [templates.image_ids[row] for row in held]
    sets = {"heldout": (templates.templates[held], make_pairs(ids, templates.identities[held], pairs_per_fold=200))}
    if lfw is not None:
        sets["lfw"] = (lfw[0].templates, find_rows(read_pairs(lfw[1]), lfw[0], source=lfw[1]))
    found = {}
    for name, (x, pairs) in sets.items():
        for kind, rows in (("original", x), ("decoded", decode(x))):
            distances = squared_distances(rows[pairs.first], rows[pairs.second])
            folds = cross_validate(distances, pairs.genuine, pairs.fold)
            found[f"{name}/accuracy_{kind}"] = float(np.mean(folds.accuracies))
        variance = np.square(x - x.mean(axis=0), dtype=np.float64).sum()
        if name == "lfw":
            found["lfw/fvu"] = float(np.square(x - decode(x), dtype=np.float64).sum() / variance)
    return found


if __name__ == "__main__":
    main()
