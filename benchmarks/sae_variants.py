"""Train SAE variants on one template set and compare them on people never seen; one line of JSON a training.

    python benchmarks/sae_variants.py --templates SET "variant=topk k=32 lr=1e-3" "variant=gated lam=0.2" …
    python benchmarks/sae_variants.py --templates SET --lfw_templates LFW --lfw_pairs pairs.txt --study FILE

Each line is one training: settings of TrainSettings as key=value. What `--output` holds
already, LFW's figures included where they are asked for, is not trained again.
Settings are chosen by the held-out columns; --lfw_templates and --lfw_pairs add LFW's, to be read once, for what was
chosen. Controls: `control=pca k=32` (so many principal components), `control=untrained …` (the SAE as it is
initialized), `control=random_decoder …` (only the encoder learns). `sae_curves.py` makes table and curves of the lines.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.parameters import options
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import new_sae, train
from fsae_mlflow.sae.variants.registry import VARIANTS
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.evaluation import fraction_of_variance_unexplained, mean_cosine
from fsae_mlflow.verification.pairs import find_rows, make_pairs, read_pairs
from fsae_mlflow.verification.protocol import cross_validate, squared_distances

HOLDOUT = 0.1


@dataclass(frozen=True)
class Contender:
    """Templates → templates decoded from their features, and how many features each fires."""

    describe: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    normalize: bool
    figures: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--lfw_templates")
    parser.add_argument("--lfw_pairs")
    parser.add_argument("--output", type=Path, default=Path("outputs/sae_variants.jsonl"))
    parser.add_argument("--study", type=Path, help="File with a training in every line; # starts a comment.")
    parser.add_argument("--shared", default="", help="Settings of every training that does not say otherwise.")
    parser.add_argument("trainings", nargs="*")
    given = parser.parse_args()
    lines = given.study.read_text().splitlines() if given.study else []
    lines = [line for line in map(str.strip, lines) if line and not line.startswith("#")] + given.trainings
    templates = TemplateSet.open(given.templates)
    lfw = (TemplateSet.open(given.lfw_templates), Path(given.lfw_pairs)) if given.lfw_templates else None
    given.output.parent.mkdir(parents=True, exist_ok=True)
    for line in lines:
        work = {"training": line, "shared": given.shared, "templates": templates.digest}
        done = [json.loads(old) for old in given.output.open()] if given.output.exists() else []
        if any(work.items() <= old.items() and (lfw is None or "lfw/fvu" in old) for old in done):
            continue
        started = time.monotonic()
        chosen = dict(word.split("=", 1) for word in f"{given.shared} {line}".split())
        contender = CONTROLS[chosen.pop("control", "none")](chosen, templates)
        figures = contender.metrics | measured(contender, templates, lfw, int(chosen.get("seed", 0)))
        result = work | figures | {"seconds": time.monotonic() - started}
        print(
            json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in result.items()})
        )
        with given.output.open("a") as file:
            file.write(json.dumps(result) + "\n")


def settings_of(chosen: dict[str, str]) -> TrainSettings:
    """Settings from their spelling.

    Raises: ValueError for another share of people held out than what is measured on.
    """
    if float(chosen.get("holdout", HOLDOUT)) != HOLDOUT:
        raise ValueError(
            f"holdout must be {HOLDOUT}, for all are measured on the same people; it is {chosen['holdout']}."
        )
    kinds = {option.name: option.type for option in options(TrainSettings)}
    typed = {name: value == "True" if kinds[name] is bool else kinds[name](value) for name, value in chosen.items()}
    return TrainSettings(**{"holdout": HOLDOUT, **typed})


def trained(chosen: dict[str, str], templates: TemplateSet) -> Contender:
    """An SAE after training."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(settings_of(chosen), templates=templates, output=Path(folder), on_metrics=lambda *_: None)
    return contender_of(
        result.sae, alive=result.metrics["train/alive"], templates_per_second=result.templates_per_second
    )


def untrained(chosen: dict[str, str], templates: TemplateSet) -> Contender:
    """An SAE as training would begin with it."""
    settings = settings_of(chosen)
    held = holdout_rows(templates.identities, HOLDOUT, seed=settings.seed)
    sae = new_sae(settings, TrainingData(templates, ~held, max_bytes=2**40))
    return contender_of(sae.eval())


def random_decoder(chosen: dict[str, str], templates: TemplateSet) -> Contender:
    """An SAE of which only the encoder learns; the decoder's directions stay random."""
    name = chosen.get("variant", TrainSettings.variant)
    variant = VARIANTS[name]

    class Frozen(variant):  # type: ignore[valid-type, misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.W_dec.requires_grad_(False)

    with patch.dict(VARIANTS, {name: Frozen}):
        return trained({**chosen, "step": "plain", "resample_every": "0"}, templates)


def pca(chosen: dict[str, str], templates: TemplateSet) -> Contender:
    """As many principal components of the training templates as an SAE's features fire."""
    settings = settings_of(chosen)
    x = unit(templates.templates, settings.normalize)
    x = x[~holdout_rows(templates.identities, HOLDOUT, seed=settings.seed)].astype(np.float64)
    mean = x.mean(axis=0)
    basis = np.linalg.svd(x - mean, full_matrices=False)[2][: settings.k]

    def describe(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = unit(rows, settings.normalize)
        return (mean + (rows - mean) @ basis.T @ basis).astype(np.float32), np.full(len(rows), float(settings.k))

    return Contender(describe, settings.normalize, {})


CONTROLS = {"none": trained, "untrained": untrained, "random_decoder": random_decoder, "pca": pca}


def unit(rows: np.ndarray, wanted: bool) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if wanted else rows


def contender_of(sae: SparseAutoencoder, **figures: float) -> Contender:
    @torch.no_grad()
    def describe(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decoded, n_firing = [], []
        for batch in torch.from_numpy(x).split(1024):
            features = sae.encode(batch)
            decoded.append(sae.decode(features))
            n_firing.append((features > 0).sum(dim=1))
        return torch.cat(decoded).numpy(), torch.cat(n_firing).double().numpy()

    return Contender(describe, sae.normalize, figures)


def measured(
    contender: Contender, templates: TemplateSet, lfw: tuple[TemplateSet, Path] | None, seed: int
) -> dict[str, float]:
    """fvu, cosine, L0, and accuracy from originals and from decoded templates: on training people, on held-out people
    with pairs made of them, and on LFW.
    """
    held = holdout_rows(templates.identities, HOLDOUT, seed=seed)
    ids = [templates.image_ids[row] for row in np.flatnonzero(held)]
    made = make_pairs(ids, templates.identities[held], pairs_per_fold=200)
    sets = {"train": (templates.templates[~held], None), "heldout": (templates.templates[held], made)}
    if lfw is not None:
        sets["lfw"] = (lfw[0].templates, find_rows(read_pairs(lfw[1]), lfw[0], source=lfw[1]))
    found = {}
    for name, (raw, pairs) in sets.items():
        x_hat, n_firing = contender.describe(raw)
        x = unit(raw, contender.normalize)
        found[f"{name}/fvu"] = fraction_of_variance_unexplained(x, x_hat)
        found[f"{name}/cosine"] = mean_cosine(x, x_hat)
        found[f"{name}/l0"] = float(n_firing.mean())
        for kind, rows in (("original", x), ("decoded", x_hat)) if pairs else ():
            distances = squared_distances(rows[pairs.first], rows[pairs.second])
            folds = cross_validate(distances, pairs.genuine, pairs.fold)
            found[f"{name}/accuracy_{kind}"] = float(np.mean(folds.accuracies))
    return found


if __name__ == "__main__":
    main()
