"""Test what the two clusters of the paper's figure 2 are; one line of JSON a training.

    python benchmarks/figure2.py --sets sets --pairs pairs.txt --study benchmarks/figure2.txt
    python benchmarks/figure2.py --table --plot docs/figure2.png

The hypothesis: the dense cluster is a signed basis of the templates' own subspace. Then it has twice as many features
as the templates have effective dimensions, each with an antipode, and each fires on up to half of the faces.

A line of the study is one training: `set=NAME` and parameters of train_sae as key=value, or `control=ica` for signed
independent components, which are such a basis. SETS/NAME/templates are the templates, and SETS/lfw_NAME/templates those
that are verified. `set=gaussian` and `set=sparse` are made: 64 Gaussian sources, or 64 sources of which each fires on
15 % of the templates, in a random subspace of 256 dimensions. What `--output` holds already is not trained again.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from fsae_mlflow.features.clusters import clusters
from fsae_mlflow.features.comparison.cosines import OPPOSITE, antipode_share, antipodes
from fsae_mlflow.features.controls import control
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.parameters import parse
from fsae_mlflow.report import style
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import unit
from fsae_mlflow.sae.training.measures import measure
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.spectrum import spectrum
from fsae_mlflow.verification.evaluation import evaluate
from fsae_mlflow.verification.settings import EvaluateSettings
from tests.template_sets import TemplateWriter, face_row

SHARED = "normalize=True batch_size=512 lr=2e-3 lr_warmup=50 epochs=8 device=cpu"
RESAMPLED = {"resample_every": "2"}  # of 8 epochs, the default 10 would resample none
PLANTED = ("gaussian", "sparse")
N_PLANTED, N_SOURCES, PLANTED_WIDTH, FIRING = 12_000, 64, 256, 0.15
EDGES = np.linspace(-4.5, 0, 46)
"""Edges of the bins of log10 density."""
PAPER = [(1 / 3.2e6, 20 / 3.2e6, 25_527), (0.40, 0.48, 451)]
"""Densities from, to, and features: 39.64 % of 65,536 are alive, and 451 of them are dense."""
TOPK = "variant=topk k={} expansion=2 epochs=40 lr=4e-3 {}aux_weight=1{}"
REAL, MADE = ("mixup=1 ", " weight_decay=1"), ("", "")
JUMPRELU = "set=b variant=jumprelu lam=5e-4 expansion=2 epochs=40 lr=8e-3 mixup=1 resample_every=10"
PANELS = {
    "Signed ICA, recognizer b": "set=b control=ica",
    "Top-k 105 of 1,024, recognizer b": "set=b " + TOPK.format(105, *REAL),
    "Top-k 105 of 1,024, recognizer a": "set=a " + TOPK.format(105, *REAL),
    "JumpReLU, 1,024 features, recognizer b": JUMPRELU,
    "Top-k 51 of 512, 64 planted Gaussian sources": "set=gaussian " + TOPK.format(51, *MADE),
    "Top-k 10 of 512, 64 planted sparse sources": "set=sparse " + TOPK.format(10, *MADE),
    "Gated, λ 0.13, 4,096 features, recognizer b": "set=b variant=gated lam=0.13",
}
ALIVE, PAIRED = "alive features", "of these, features with an antipode (decoder cosine below −0.9)"
HIDDEN = ("lr=", "aux_weight=", "weight_decay=", "resample_every=1", "resample_every=2")
"""Words of a training that the table leaves out."""
COLUMNS = {  # heading → metrics, digits
    "alive": (["n_alive"], 0),
    "L0": (["train/l0"], 0),
    "fvu train / held-out": (["train/fvu", "heldout/fvu"], 3),
    "valley": (["separated"], 0),
    "dense / 2 × dimension": (["high/n", "twice_dimension"], 0),
    "axes": (["high/axes"], 0),
    "density": (["high/densities"], 2),
    "antipode: dense / rest": (["high/antipodes", "low/antipodes"], 2),
    "faces": (["low/faces"], 0),
    "cosine: ICA / PCA / random": (["high/ica", "high/pca", "high/random"], 2),
    "LFW: all / dense / rest": (["lfw/all", "lfw/high", "lfw/low"], 4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=Path("sets"))
    parser.add_argument("--pairs", default="", help="LFW's pairs.txt; without it no accuracy is measured.")
    parser.add_argument("--study", type=Path, help="File with a training in every line; # starts a comment.")
    parser.add_argument("--output", type=Path, default=Path("outputs/figure2.jsonl"))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    lines = given.study.read_text().splitlines() if given.study else []
    for line in (line for line in map(str.strip, lines) if line and not line.startswith("#")):
        if line not in results(given.output):
            result = {"training": line} | measured(line, given.sets, given.pairs)
            given.output.parent.mkdir(parents=True, exist_ok=True)
            with given.output.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(json.dumps({key: value for key, value in result.items() if key != "histogram"}), flush=True)
    found = results(given.output)
    if given.table:
        print("| training | " + " | ".join(COLUMNS) + " |")
        print("|---" * (1 + len(COLUMNS)) + "|")
        for line, result in found.items():
            cells = [spelled([result[m] for m in metrics if m in result], n) for metrics, n in COLUMNS.values()]
            words = (word.removeprefix("variant=") for word in line.split() if not word.startswith(HIDDEN))
            print(f"| {' '.join(words)} | " + " | ".join(cells) + " |")
    if given.plot:
        draw(found, given.plot)


def results(output: Path) -> dict[str, dict[str, Any]]:
    """What was measured of each training so far."""
    lines = [json.loads(line) for line in output.open()] if output.exists() else []
    return {result["training"]: result for result in lines}


def measured(line: str, sets: Path, pairs: str) -> dict[str, Any]:
    """Train, and measure the clusters of the SAE."""
    started = time.monotonic()
    words = spelled_out(line)
    name = words.pop("set")
    templates = template_set(name, sets)
    n_axes = dimension(name, sets)
    sae = control_of(words["control"], name, sets) if "control" in words else trained(words, templates)
    held = holdout_rows(templates.identities, 0.1, seed=0)
    train_density, train_fvu = activity(sae, templates.templates[~held])
    heldout_density, heldout_fvu = activity(sae, templates.templates[held])
    sae.density.copy_(torch.from_numpy(train_density))
    split = clusters(train_density)
    antipode = antipodes(sae.W_dec, train_density > 0)
    found: dict[str, Any] = {
        "alive": float((train_density > 0).mean()),
        "n_alive": int((train_density > 0).sum()),
        "train/l0": train_density.sum(),
        "heldout/l0": heldout_density.sum(),
        "train/fvu": train_fvu,
        "heldout/fvu": heldout_fvu,
        "twice_dimension": 2 * n_axes,
        "split": split.split,
        "separated": int(split.separated),
        "high/n": int(split.high.sum()),
        "high/l0": train_density[split.high].sum(),
        "high/densities": np.quantile(train_density[split.high], [0.1, 0.9]).tolist(),
        "high/antipodes": antipode_share(antipode[split.high]),
        "high/axes": split.high.sum() * (1 - antipode_share(antipode[split.high]) / 2),
        "low/n": int(split.low.sum()),
        "low/faces": float(np.median(train_density[split.low]) * (~held).sum()),
        "low/antipodes": antipode_share(antipode[split.low]),
        "low/l0": train_density[split.low].sum(),
        "low/l0_ratio": heldout_density[split.low].sum() / train_density[split.low].sum(),
        "histogram": histogram(train_density, antipode < OPPOSITE),
    }
    rows = unit(sae.W_dec.double().numpy()[split.high])
    found["high/outside"] = outside(rows, n_axes, unit(templates.templates[held].astype(np.float64)))
    for kind, directions in axes(name, sets).items():
        found[f"high/{kind}"] = float(np.abs(rows @ directions.T).max(axis=1).mean())
    if pairs and name not in PLANTED:
        found |= verified(sae, TemplateSet.open(sets / f"lfw_{name}" / "templates"), pairs)
    found["seconds"] = time.monotonic() - started
    return found


def spelled_out(line: str) -> dict[str, str]:
    """Parameters by name."""
    return dict(word.split("=", 1) for word in line.split())


def trained(words: dict[str, str], templates: TemplateSet) -> SparseAutoencoder:
    shared = spelled_out(SHARED)
    if words["variant"] in ("gated", "relu", "jumprelu"):
        shared |= RESAMPLED
    settings = parse(TrainSettings, {"templates": str(templates.folder)} | shared | words)
    with tempfile.TemporaryDirectory() as folder:
        return train(settings, templates=templates, output=Path(folder), on_metrics=lambda *_: None).sae


def activity(sae: SparseAutoencoder, templates: np.ndarray) -> tuple[np.ndarray, float]:
    """The density of each feature, and the fvu."""
    found = measure(sae, sae.scaled(torch.from_numpy(templates)))
    return found.sparsity.density, found.fidelity.fvu


def outside(rows: np.ndarray, n_axes: int, x: np.ndarray) -> float:
    """The share of the variance of `x` that lies outside the `n_axes` main dimensions of the rows."""
    span = np.linalg.svd(rows, full_matrices=False)[2][:n_axes]
    x = x - x.mean(axis=0)
    return float(1 - np.square(x @ span.T).sum() / np.square(x).sum())


def verified(sae: SparseAutoencoder, lfw: TemplateSet, pairs: str) -> dict[str, float]:
    """LFW's accuracy from the original templates, from each cluster, and from all features."""
    with tempfile.TemporaryDirectory() as folder:
        settings = EvaluateSettings(pairs=pairs, device="cpu")
        rows = evaluate(settings, templates=lfw, sae=sae, output=Path(folder)).rows
    return {f"lfw/{row.name}": row.accuracy.mean for row in rows} | {"lfw/fvu": rows[-1].fvu, "lfw/l0": rows[-1].l0}


def histogram(density: np.ndarray, has_antipode: np.ndarray) -> dict[str, list[int]]:
    """Alive features by log10 density, with an antipode and without."""
    alive = density > 0
    sides = {"antipode": alive & has_antipode, "single": alive & ~has_antipode}
    return {name: np.histogram(np.log10(density[side]), EDGES)[0].tolist() for name, side in sides.items()}


@cache
def template_set(name: str, sets: Path) -> TemplateSet:
    """The set of that name; a planted one is made."""
    if name not in PLANTED:
        return TemplateSet.open(sets / name / "templates")
    rng = np.random.default_rng(0)
    shape = (N_PLANTED, N_SOURCES)
    sources = rng.normal(size=shape)
    if name == "sparse":
        sources *= rng.random(shape) < FIRING
    templates = sources @ rng.normal(size=(N_SOURCES, PLANTED_WIDTH))
    folder = Path(tempfile.mkdtemp())
    with TemplateWriter(folder, width=PLANTED_WIDTH, metadata={"name": name}) as writer:
        writer.write(face_row(f"{i:05d}/0.jpg", template, b"") for i, template in enumerate(templates))
    return TemplateSet.open(folder)


@cache
def dimension(name: str, sets: Path) -> int:
    """The effective dimension: 99.99 % of the variance."""
    return spectrum(template_set(name, sets)).dimensions(99.99)


@cache
def control_of(kind: str, name: str, sets: Path) -> SparseAutoencoder:
    """A signed basis of the effective dimension."""
    templates = template_set(name, sets)
    n_features = 2 * dimension(name, sets)
    return control(kind, templates.templates, n_features=n_features, seed=0, origin=templates.origin)


@cache
def axes(name: str, sets: Path) -> dict[str, np.ndarray]:
    """Unit directions, as many as the effective dimension: independent and principal components, and random ones in the
    span of the latter.
    """
    n_axes = dimension(name, sets)
    ica, pca = (unit(control_of(kind, name, sets).W_dec.double().numpy()[:n_axes]) for kind in ("ica", "pca"))
    mixed = np.random.default_rng(0).normal(size=(n_axes, n_axes)) @ pca
    return {"ica": ica, "pca": pca, "random": unit(mixed)}


def spelled(values: list[Any], digits: int) -> str:
    """Numbers, and ranges of two, with `digits` decimals."""
    ranges = (value if isinstance(value, list) else [value] for value in values)
    return " / ".join("–".join(f"{one:,.{digits}f}" for one in range_) for range_ in ranges)


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Histograms of density, those with an antipode marked, below what the paper reports."""
    n_rows = (1 + len(PANELS)) // 2
    with style.canvas(path, 10.5, 2.4 * n_rows) as figure:
        panels = figure.subplots(n_rows, 2, sharex=True, sharey=True).ravel()
        for axes in panels:
            axes.grid(axis="y")
            axes.set_yscale("log")
        panels[0].set_title("The paper: 65,536 features, as reported")
        for low, high, n in PAPER:
            panels[0].bar(low, n, high - low, align="edge", color=style.GRAY, alpha=0.6)
            panels[0].annotate(f"{n:,} features", (high, n), ha="right", va="bottom", fontsize=9)
        panels[0].set(xscale="log", xlim=(1e-7, 1.2), ylim=(0.7, 1e5))
        for axes, (title, line) in zip(panels[1:], PANELS.items(), strict=True):
            result, edges = found[line], 10**EDGES
            with_antipode, single = (np.array(result["histogram"][side]) for side in ("antipode", "single"))
            axes.stairs(with_antipode + single, edges, fill=True, color=style.GRAY, alpha=0.6, label=ALIVE)
            axes.stairs(with_antipode, edges, fill=True, color=style.VERMILION, alpha=0.8, label=PAIRED)
            axes.set_title(title)
            share = with_antipode.sum() / (with_antipode.sum() + single.sum())
            axes.annotate(
                f"{result['n_alive']:,} alive, L0 {result['train/l0']:,.0f}\n{share:.0%} have an antipode\n"
                f"2 × dimension: {result['twice_dimension']}",
                (0.02, 0.95),
                xycoords="axes fraction",
                va="top",
                fontsize=9,
            )
        for axes in panels[::2]:
            axes.set_ylabel("features")
        for axes in panels[-2:]:
            axes.set_xlabel("density: share of the training faces that fire a feature")
        figure.legend(*panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=2)


if __name__ == "__main__":
    main()
