"""Which SAE variants recover the directions that templates were made of, beside controls and chance.

    python benchmarks/planted_directions.py --seeds 2

After SynthSAEBench (SAELens 6): 20,000 templates are sparse sums of 256 random unit directions in 128 or in 64
dimensions, plus noise. Direction i fires with a probability in proportion to i^-0.7, 6 directions fire at a time, at
1 ± 0.3. Every SAE has 256 features and learns from these templates alone. λ was chosen so that L0 is near 6, and the
learning rate by the fvu, among 1.5e-3, 3e-3, 6e-3 and 1.2e-2, on a dictionary of another seed. L0 and fvu are of 2,000
more templates. The table has the largest cosine of each planted direction with any decoder row: its mean over all
directions, over the 64 that fire most and the 64 that fire least, and the share above 0.9. The last column is the other
way round: the mean over the decoder rows that fire of their largest cosine with a planted direction.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from fsae_mlflow.features.controls import control
from fsae_mlflow.metrics import Fidelity
from fsae_mlflow.parameters import parse
from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import train
from fsae_mlflow.templates.set import TemplateSet
from tests.template_sets import TemplateWriter, face_row

N_DIRECTIONS, N_TEMPLATES, N_HELD_OUT, FIRING, POWER, NOISE = 256, 20_000, 2_000, 6.0, 0.7, 0.02
OF_ALL = "epochs=20 step=plain device=cpu holdout=0"
TRAININGS = {
    128: [
        "variant=gated lam=0.5 lr=6e-3",
        "variant=relu lam=0.35 lr=6e-3",
        "variant=jumprelu lam=0.02 bandwidth=0.1 initial_threshold=0.2 lr=3e-3",
        "variant=topk k=6 aux_weight=1 lr=6e-3",
        "variant=batchtopk k=6 aux_weight=1 lr=6e-3",
        "variant=matryoshka k=6 aux_weight=1 lr=6e-3",
    ],
    64: [
        "variant=gated lam=0.6 lr=6e-3",
        "variant=relu lam=0.35 lr=6e-3",
        "variant=jumprelu lam=0.03 bandwidth=0.1 initial_threshold=0.2 lr=3e-3",
        "variant=topk k=6 aux_weight=1 lr=1.2e-2",
        "variant=batchtopk k=6 aux_weight=1 lr=1.2e-2",
        "variant=matryoshka k=6 aux_weight=1 lr=6e-3",
    ],
}
CONTROLS = ("random", "pca", "ica", "kmeans")
COLUMNS = ("L0", "fvu", "cosine", "often", "rarely", "above 0.9", "back")


@dataclass(frozen=True, kw_only=True)
class World:
    """Planted unit directions by falling frequency, templates to learn from, and templates to measure on."""

    directions: np.ndarray
    templates: np.ndarray
    held_out: np.ndarray


def world(d_in: int, seed: int) -> World:
    rng = np.random.default_rng([seed, d_in])
    directions = rng.normal(size=(N_DIRECTIONS, d_in))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequency = np.arange(1, N_DIRECTIONS + 1) ** -POWER
    frequency *= FIRING / frequency.sum()
    shape = (N_TEMPLATES + N_HELD_OUT, N_DIRECTIONS)
    activations = (rng.random(shape) < frequency) * rng.normal(1, 0.3, shape).clip(min=0.1)
    templates = activations @ directions + NOISE * rng.normal(size=(len(activations), d_in))
    templates = templates.astype(np.float32)
    return World(directions=directions, templates=templates[:N_TEMPLATES], held_out=templates[N_TEMPLATES:])


def trained(templates: TemplateSet, line: str, seed: int) -> SparseAutoencoder:
    given = dict(word.split("=") for word in f"{line} {OF_ALL} seed={seed}".split())
    expansion = N_DIRECTIONS // templates.width
    settings = parse(TrainSettings, {"templates": str(templates.folder), "expansion": expansion} | given)
    with tempfile.TemporaryDirectory() as folder:
        return train(settings, templates=templates, output=Path(folder), on_metrics=lambda *_: None).sae


def template_set(folder: Path, templates: np.ndarray) -> TemplateSet:
    with TemplateWriter(folder, width=templates.shape[1], metadata={"name": "planted directions"}) as writer:
        writer.write(face_row(f"{i:05d}/0.jpg", template, b"") for i, template in enumerate(templates))
    return TemplateSet.open(folder)


@torch.no_grad()
def measured(sae: SparseAutoencoder, planted: World) -> dict[str, float]:
    x = torch.from_numpy(planted.held_out)
    features = sae.encode(x)
    x_hat = sae.decode(features)
    if sae.normalize:  # A control reads directions alone: the length is given back.
        x_hat *= x.norm(dim=1, keepdim=True)
    rows = torch.nn.functional.normalize(sae.W_dec, dim=1).double().numpy()
    cosines = planted.directions @ rows.T
    best = cosines.max(axis=1)
    alive = (features > 0).any(dim=0).numpy()
    quarter = N_DIRECTIONS // 4
    found = {
        "L0": float((features > 0).sum(dim=1).double().mean()),
        "fvu": Fidelity.of(x, x_hat).fvu,
        "cosine": best.mean(),
        "often": best[:quarter].mean(),
        "rarely": best[-quarter:].mean(),
        "above 0.9": (best > 0.9).mean(),
        "back": cosines[:, alive].max(axis=0).mean(),
    }
    return {name: float(value) for name, value in found.items()}


def spelled(values: list[float]) -> str:
    """Mean, and ± half the range where there are several."""
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="Planted dictionaries for each width.")
    parser.add_argument("--d_in", type=int, nargs="+", default=list(TRAININGS), choices=list(TRAININGS))
    given = parser.parse_args()
    for d_in in given.d_in:
        results: dict[str, list[dict[str, float]]] = defaultdict(list)
        for seed in range(given.seeds):
            planted = world(d_in, seed)
            for name in CONTROLS:
                sae = control(name, planted.templates, n_features=N_DIRECTIONS, seed=seed, origin=Origin("planted"))
                results[f"control: {name}"].append(measured(sae, planted))
            with tempfile.TemporaryDirectory() as folder:
                templates = template_set(Path(folder) / "set", planted.templates)
                for line in TRAININGS[d_in]:
                    results[line].append(measured(trained(templates, line, seed), planted))
        print(f"\n| {N_DIRECTIONS} directions in {d_in} dimensions | " + " | ".join(COLUMNS) + " |")
        print("|---" * (1 + len(COLUMNS)) + "|")
        for name, found in results.items():
            cells = [spelled([one[column] for one in found]) for column in COLUMNS]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
