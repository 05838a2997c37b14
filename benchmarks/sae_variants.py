"""Train SAE variants on one template set and compare them on people never seen; one line of JSON a training.

    python benchmarks/sae_variants.py --templates SET "variant=topk k=32 lr=1e-3" "variant=gated lam=0.2" …
    python benchmarks/sae_variants.py --templates SET --lfw_templates LFW --lfw_pairs pairs.txt --study FILE

Each line is one training: parameters of train_sae as key=value. What `--output` holds already, with LFW's metrics where
they are asked for, is not trained again. Settings are chosen by the held-out columns; --lfw_templates and --lfw_pairs
add LFW's, to be read once, for what was chosen; --attributes adds the metrics of readings and probes, by a CSV or
Parquet file of labels. A line may have preset=NAME. Controls: `control=pca variant=topk k=32` (principal components),
`control=untrained …` (the SAE as it is initialized), `control=random_decoder …` (only the encoder learns),
`control=raw variant=pca …` (the first dimensions of templates, signed, in place of the directions of the variant).
`sae_curves.py` makes a table and curves of the lines; with `--keep FOLDER`, which saves each SAE, also of what is found
again in another seed.
"""

import argparse
import dataclasses
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

from fsae_mlflow.features.describe import reading_metrics
from fsae_mlflow.features.settings import DescribeSettings
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.parameters import fingerprint, flat, parse
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import DIRECTIONS
from fsae_mlflow.sae.saved import save_sae
from fsae_mlflow.sae.training import start as beginning
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.sae.variants import registry
from fsae_mlflow.sae.variants.settings import PenalizedSettings, TopKSettings
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.pairs import find_rows, make_pairs, read_pairs
from fsae_mlflow.verification.protocol import cross_validate, squared_distances

HOLDOUT = 0.1


@dataclass(frozen=True)
class Contender:
    """Templates → templates decoded from their features, and how many features each fires."""

    describe: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    normalize: bool
    metrics: dict[str, float]
    sae: SparseAutoencoder | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", required=True)
    parser.add_argument("--lfw_templates")
    parser.add_argument("--lfw_pairs")
    parser.add_argument("--attributes", default="")
    parser.add_argument("--output", type=Path, default=Path("outputs/sae_variants.jsonl"))
    parser.add_argument("--keep", type=Path, help="Folder to save each SAE in.")
    parser.add_argument("--study", type=Path, help="File with a training in every line; # starts a comment.")
    parser.add_argument(
        "--shared",
        default="",
        help="Parameters of every training whose variant has and reads them and whose line does not give them.",
    )
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
        wanted = {"lfw/fvu"} if lfw else set()
        wanted |= {"sae"} if given.keep else set()
        if any(work.items() <= old.items() and wanted <= old.keys() for old in done):
            continue
        started = time.monotonic()
        shared, chosen = (dict(word.split("=", 1) for word in words.split()) for words in (given.shared, line))
        control = CONTROLS[chosen.pop("control", "none")]
        settings = settings_of(chosen, shared)
        contender = control(settings, templates)
        seconds = {"seconds": time.monotonic() - started}
        metrics = contender.metrics | measured(contender, templates, lfw, settings.seed)
        if given.attributes and contender.sae:
            reading = DescribeSettings(attributes=given.attributes)
            metrics |= reading_metrics(reading, templates=templates, sae=contender.sae)
        result = work | metrics | seconds
        if given.keep and contender.sae:
            folder = given.keep / fingerprint(work)
            save_sae(contender.sae, folder, settings=flat(settings), templates=templates.metadata)
            result["sae"] = str(folder)
        print(
            json.dumps({key: round(value, 5) if isinstance(value, float) else value for key, value in result.items()})
        )
        with given.output.open("a") as file:
            file.write(json.dumps(result) + "\n")


def settings_of(chosen: dict[str, str], shared: dict[str, str]) -> TrainSettings:
    """Settings from their spelling.

    Raises: ValueError for another share of people held out than what is measured on.
    """
    presets = TrainSettings.PRESETS.get(chosen.get("preset", ""), {})
    settings = parse(TrainSettings, chosen, preset={"holdout": HOLDOUT, **shared, **presets})
    if settings.holdout != HOLDOUT:
        raise ValueError(
            f"holdout must be {HOLDOUT}, because all are measured on the same people; it is {settings.holdout}."
        )
    return settings


def trained(settings: TrainSettings, templates: TemplateSet) -> Contender:
    """An SAE after training."""
    with tempfile.TemporaryDirectory() as folder:
        result = train(settings, templates=templates, output=Path(folder), on_metrics=lambda *_: None)
    known = ("train/alive", "templates_per_second", "lam")
    metrics = {name.removeprefix("train/"): result.metrics[name] for name in known if name in result.metrics}
    return contender_of(result.sae, **metrics)


def untrained(settings: TrainSettings, templates: TemplateSet) -> Contender:
    """An SAE as training would begin with it."""
    held = holdout_rows(templates.identities, HOLDOUT, seed=settings.seed)
    space, sae = start(settings, TrainingData(templates, ~held, max_bytes=2**40))
    sae = space.in_template_space(sae).eval().requires_grad_(False)
    sae.density.copy_((sae.encode(torch.from_numpy(templates.templates[~held])) > 0).double().mean(dim=0))
    return contender_of(sae)


def random_decoder(settings: TrainSettings, templates: TemplateSet) -> Contender:
    """An SAE of which only the encoder learns; the decoder's directions stay random."""

    def frozen(*arguments: Any, **named: Any) -> SparseAutoencoder:
        sae = registry.untrained(*arguments, **named)
        sae.W_dec.requires_grad_(False)
        return sae

    variant = settings.variant
    if isinstance(variant, PenalizedSettings):
        variant = dataclasses.replace(variant, resample_every=0)
    with patch.object(beginning, "untrained", frozen):
        return trained(dataclasses.replace(settings, variant=variant, step="plain"), templates)


def raw(settings: TrainSettings, templates: TemplateSet) -> Contender:
    """A computed dictionary of which the directions are the first dimensions of templates, each with both signs."""
    with patch.dict(DIRECTIONS, {str(settings.variant.directions): DIRECTIONS["raw"]}):
        return trained(settings, templates)


def pca(settings: TrainSettings, templates: TemplateSet) -> Contender:
    """As many principal components of the training templates as `k` says (give variant=topk k=…)."""
    assert isinstance(settings.variant, TopKSettings), "control=pca takes variant=topk and k=…"
    k = settings.variant.k
    x = unit(templates.templates, settings.normalize)
    x = x[~holdout_rows(templates.identities, HOLDOUT, seed=settings.seed)].astype(np.float64)
    mean = x.mean(axis=0)
    basis = np.linalg.svd(x - mean, full_matrices=False)[2][:k]

    def describe(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = unit(rows, settings.normalize)
        return (mean + (rows - mean) @ basis.T @ basis).astype(np.float32), np.full(len(rows), float(k))

    return Contender(describe, settings.normalize, {})


CONTROLS = {"none": trained, "untrained": untrained, "random_decoder": random_decoder, "raw": raw, "pca": pca}


def unit(rows: np.ndarray, wanted: bool) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if wanted else rows


def contender_of(sae: SparseAutoencoder, **metrics: float) -> Contender:
    @torch.no_grad()
    def describe(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decoded, n_firing = [], []
        for batch in torch.from_numpy(x).split(1024):
            features = sae.encode(batch)
            decoded.append(sae.decode(features))
            n_firing.append((features > 0).sum(dim=1))
        return torch.cat(decoded).numpy(), torch.cat(n_firing).double().numpy()

    return Contender(describe, sae.normalize, metrics, sae)


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
        fidelity = Fidelity.of(x, x_hat)
        found[f"{name}/fvu"], found[f"{name}/cosine"] = fidelity.fvu, fidelity.cosine
        found[f"{name}/l0"] = float(n_firing.mean())
        for kind, rows in (("original", x), ("decoded", x_hat)) if pairs else ():
            distances = squared_distances(rows[pairs.first], rows[pairs.second])
            folds = cross_validate(distances, pairs.genuine, pairs.fold)
            found[f"{name}/accuracy_{kind}"] = float(np.mean(folds.accuracies))
    return found


if __name__ == "__main__":
    main()
