"""Which parametrization makes images that can be believed: each judged by the same measures, beside controls.

    python benchmarks/feature_images.py --templates sets/b/templates --sae sae/readable --readings readings/readable \
        --judge onnx:mobilefacenet_a.onnx --judge_card card_a.json --attributes celeba_attributes.csv

One image of each of the 20 features that fire on most faces and of the 20 that fire on fewest (at least 30). The table
is printed as Markdown. What is in `--output` already is not made again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from fsae_mlflow.extraction.single import recognizer_of
from fsae_mlflow.features.table import read_description
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS
from fsae_mlflow.visualization.results import OptimizedImage
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.stage import confirming, visualize
from fsae_mlflow.visualization.verdict.judge import Judge, top_faces

FEWEST_FACES = 30
HEADER = (
    "",
    "judge's AUC, dense / sparse",
    "face probability",
    "≥ 99.9 % of faces",
    "× strongest face, median (most)",
    "after 2 px / JPEG",
    "first of all features",
    "probe percentile",
    "confirmed",
    "s an image",
)


def row(name: str, images: list[OptimizedImage], dense: set[int], seconds: float) -> str:
    """The measures of some images as a line of the table."""
    found = [image.verdict for image in images]

    def auc(inside: bool) -> float:
        values = [one.verdict.judge_auc for one in images if (one.target.feature in dense) == inside]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    def values(measure: str) -> np.ndarray:
        return np.array([getattr(one, measure) for one in found], dtype=np.float64)

    activation, ratio = values("activation").clip(min=1e-9), values("to_maximum")
    cells = (
        f"{np.nanmean(values('judge_auc')):.3f}, {auc(True):.3f} / {auc(False):.3f}",
        f"{values('face_probability').mean():.2f}",
        f"{np.mean(values('percentile') >= 99.9):.0%}",
        f"{np.median(ratio):.2f} ({ratio.max():.2f})",
        f"{np.median(values('shifted') / activation):.2f} / {np.median(values('jpeg') / activation):.2f}",
        f"{np.mean(values('rank') == 1):.0%}",
        f"{np.nanmean(values('probe_percentile')):.0f}" if np.isfinite(values("probe_percentile")).any() else "",
        f"{values('confirmed').mean():.0%}",
        f"{seconds / len(images):.1f}" if seconds else "",
    )
    return f"| {name} | {' | '.join(cells)} |"


def best_possible(judge: Judge, templates: TemplateSet, top: list[np.ndarray]) -> list[float]:
    """For each feature the AUC of what its top faces have in common: each top face against the mean of the judge's
    templates of the others' (other people), as if that were an image.
    """
    found = []
    for rows in top:
        places, people = np.searchsorted(judge.rows, rows), templates.identities[rows]
        others = judge.templates[judge.drawn & ~np.isin(judge.rows, rows)]
        aucs = []
        for place, person in zip(places, people, strict=True):
            mean = judge.templates[places[people != person]].sum(axis=0)
            aucs.append(float((others @ mean < judge.templates[place] @ mean).mean()))
        found.append(float(np.mean(aucs)) if len(set(people)) > 1 else float("nan"))
    return found


def main() -> None:
    """Make the images and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("templates", "sae", "readings", "judge"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("judge_card", "attributes"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--parametrizations", default=",".join(PARAMETRIZATIONS))
    parser.add_argument("--objective", default="direction")
    parser.add_argument("--preset", default="", help="paper: the paper's settings, in place of the parametrizations")
    parser.add_argument("--n", type=int, default=20, help="features of either kind")
    parser.add_argument("--ceiling", action="store_true", help="say how well any image could do by the judge's AUC")
    parser.add_argument("--output", type=Path, default=Path("outputs/feature_images"))
    options = parser.parse_args()

    templates, sae = TemplateSet.open(options.templates), load_sae(options.sae)
    description = read_description(options.readings)
    counts = description.activity.counts
    fired = np.flatnonzero(counts >= FEWEST_FACES)
    ordered = fired[np.argsort(-counts[fired], kind="stable")]
    dense, sparse = ordered[: options.n].tolist(), ordered[-options.n :].tolist()
    given = {
        "features": ",".join(map(str, dense + sparse)),
        "n_images": 1,
        "judge": options.judge,
        "attributes": options.attributes,
        "dial": False,
    }
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    runs = {"paper": VisualizeSettings.PRESETS["paper"]} if options.preset == "paper" else {}
    names = [] if runs else options.parametrizations.split(",")
    runs |= {name: {"parametrization": name, "objective": options.objective, "images_at_once": 16} for name in names}
    for place, (name, values) in enumerate(runs.items()):
        controls = "real,other,random" if place == 0 and not options.preset else "none"
        started = time.perf_counter()
        found = visualize(
            VisualizeSettings(**given, **values, controls=controls),  # pyright: ignore[reportArgumentType]
            templates=templates,
            sae=sae,
            recognizer=recognizer_of(templates),
            output=options.output / name,
            description=description,
            judge=load_recognizer(options.judge, card=options.judge_card, parameter="judge"),
        )
        seconds = time.perf_counter() - started
        print(row(name, found.images, set(dense), 0.0 if controls != "none" else seconds), flush=True)
        for control in dict.fromkeys(image.control for image in found.controls):
            of_control = [image for image in found.controls if image.control == control]
            print(row(f"control: {control}", of_control, set(dense), 0.0), flush=True)
    if options.ceiling:
        confirm = confirming(templates)
        top = [top_faces(description.activity, feature, confirm) for feature in dense + sparse]
        recognizer = load_recognizer(options.judge, card=options.judge_card, parameter="judge")
        given = {"templates": templates, "top": top, "confirm": confirm, "seed": 0, "device": torch.device("cpu")}
        aucs = best_possible(Judge.of(recognizer, **given), templates, top)
        parts = [float(np.nanmean(part)) for part in (aucs, aucs[: options.n], aucs[options.n :])]
        print(f"the mean of the other top faces has AUC {parts[0]:.3f}, {parts[1]:.3f} / {parts[2]:.3f}")


if __name__ == "__main__":
    main()
