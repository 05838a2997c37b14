"""Table and curves of what `sae_variants.py` wrote: held-out fvu and LFW accuracy against L0; or, of trainings that
were read, the share of strongly read features against held-out fvu, and the share found again in another seed.

    python benchmarks/sae_curves.py outputs/sae_variants.jsonl --plot docs/sae_curves.png
    python benchmarks/sae_curves.py outputs/sae_readable.jsonl --readings --plot docs/sae_readings.png

Trainings that differ in their seed alone make one row (mean ± sample standard deviation) and one point (mean, with the
range as a bar). Only trainings that were read on LFW are shown. Stability: the share of alive features whose match by
direction in the SAE of another seed has a cosine above 0.7 (`sae_variants.py --keep`), over all pairs of seeds.
"""

import argparse
import itertools
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from fsae_mlflow.features.comparison.matching import match_directions
from fsae_mlflow.report import style
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.variants.registry import VARIANTS

Metrics = dict[str, list[Any]]
SHOWN = {
    "gated": (style.VERMILION, "o"),
    "relu": ("#E69F00", "s"),
    "jumprelu": ("#CC79A7", "^"),
    "topk": (style.BLUE, "o"),
    "topk, expansion 1": (style.BLUE, "*"),
    "batchtopk": (style.GREEN, "s"),
    "matryoshka": ("#56B4E9", "^"),
    "pca": (style.GRAY, "x"),
    "random_decoder": (style.GRAY, "d"),
    "untrained": (style.GRAY, "v"),
}
COLUMNS = {  # heading → metric, digits
    "L0 LFW": ("lfw/l0", 1),
    "fvu train": ("train/fvu", 3),
    "fvu held-out": ("heldout/fvu", 3),
    "fvu LFW": ("lfw/fvu", 3),
    "cosine held-out": ("heldout/cosine", 3),
    "alive": ("alive", 3),
    "pairs held-out": ("heldout/accuracy_decoded", 4),
    "LFW": ("lfw/accuracy_decoded", 4),
}
READ_COLUMNS = {
    "L0 held-out": ("heldout/l0", 1),
    "L0 LFW": ("lfw/l0", 1),
    "fvu train": ("train/fvu", 3),
    "fvu held-out": ("heldout/fvu", 3),
    "fvu LFW": ("lfw/fvu", 3),
    "LFW": ("lfw/accuracy_decoded", 4),
    "judged": ("readings/n_judged", 0),
    "strong": ("readings/strong_of_judged", 3),
    "strong features": ("n_strong", 0),
    "kinds": ("readings/n_kinds", 1),
    "probe k 5": ("probes/auroc_k5", 3),
    "stability": ("stability", 3),
    "seconds": ("seconds", 0),
}
L0_MATCHED = 60
SIDES = (
    ("left", "center"),
    ("right", "center"),
    ("left", "bottom"),
    ("right", "bottom"),
    ("left", "top"),
    ("right", "top"),
)
SIGN = {"left": 1, "right": -1, "bottom": 1, "top": -1, "center": 0}
SCATTERED = ("heldout/fvu", "readings/strong_of_judged", "heldout/l0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path)
    parser.add_argument("--readings", action="store_true")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    groups: dict[str, Metrics] = defaultdict(lambda: defaultdict(list))
    for line in given.lines.open():
        result = json.loads(line)
        if given.readings:
            result["n_strong"] = result["readings/strong_of_judged"] * result["readings/n_judged"]
        if "lfw/fvu" in result:
            name = re.sub(r"\s*\bseed=\d+", "", f"{result['training']} | {result['shared']}")
            for key, value in result.items():
                groups[name][key].append(value)
    for metrics in groups.values():
        metrics["stability"] = found_again(metrics["sae"])
    columns = READ_COLUMNS if given.readings else COLUMNS
    print("| training | n | " + " | ".join(columns) + " |")
    print("|---" * (2 + len(columns)) + "|")
    for name, metrics in groups.items():
        cells = [spelled(metrics.get(metric, []), digits) for metric, digits in columns.values()]
        print(f"| {name.split(' | ')[0]} | {len(metrics['lfw/fvu'])} | " + " | ".join(cells) + " |")
    if given.plot:
        (draw_readings if given.readings else draw)(groups, given.plot)


def found_again(folders: list[str]) -> list[float]:
    """The share, 0…1, of features found again by direction, for each two of the SAEs saved in these folders."""
    saes = [(sae, (sae.density > 0).numpy()) for sae in map(load_sae, folders)]
    pairs = itertools.combinations(saes, 2)
    return [match_directions(a, b, alive_a, alive_b).found_again for (a, alive_a), (b, alive_b) in pairs]


def spelled(values: list[float], digits: int) -> str:
    """Mean, and ± sample standard deviation where there are several."""
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def kind(training: str) -> str:
    """The control or variant of a training, with its expansion where that is its own."""
    words = dict(word.split("=", 1) for word in training.split(" | ")[0].split())
    size = f", expansion {words['expansion']}" if "expansion" in words else ""
    return words.get("control", words.get("variant", "gated")) + size


def draw(groups: dict[str, Metrics], path: Path) -> None:
    """Both curves side by side; the originals' accuracy as a line."""
    original = next(iter(groups.values()))["lfw/accuracy_original"][0]
    with style.canvas(path, 10.5, 5.0) as figure:
        left, right = figure.subplots(1, 2)
        for axes, l0, value in ((left, "heldout/l0", "heldout/fvu"), (right, "lfw/l0", "lfw/accuracy_decoded")):
            axes.grid(axis="y")
            axes.set_xscale("log")
            axes.set_xticks([16, 32, 64, 105, 200], ["16", "32", "64", "105", "200"])
            axes.minorticks_off()
            axes.set_xlabel("L0: features a template fires, mean")
            for name, (color, marker) in SHOWN.items():
                points = sorted(
                    (np.mean(f[l0]), np.mean(f[value]), f[value]) for n, f in groups.items() if kind(n) == name
                )
                if points:
                    x, y = [point[0] for point in points], [point[1] for point in points]
                    spread = [[y - min(all_) for _, y, all_ in points], [max(all_) - y for _, y, all_ in points]]
                    axes.errorbar(
                        x, y, yerr=spread, label=name, color=color, marker=marker, markersize=5, linewidth=1.3
                    )
        left.set_title("Held-out people: fvu")
        right.set_title("LFW: accuracy from decoded templates")
        right.axhline(original, color=style.INK, linewidth=1)
        right.annotate("originals", (0.02, original), xycoords=("axes fraction", "data"), va="bottom", fontsize=9)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)


def draw_readings(groups: dict[str, Metrics], path: Path) -> None:
    """A point a training: how much its features leave unexplained, and how many of them are strongly read."""
    colors = {"computed": style.VERMILION, "trained": style.BLUE, "control": style.GRAY}
    means = {name: [float(np.mean(found[key])) for key in SCATTERED] for name, found in groups.items()}
    with style.canvas(path, 9.5, 6.5) as figure:
        axes = figure.subplots()
        axes.grid(axis="both")
        for name, (x, y, l0) in means.items():
            color = colors[origin(name)]
            axes.plot(x, y, "o", color=color, markerfacecolor=color if abs(l0 / L0_MATCHED - 1) < 0.1 else "white")
        for kind, color in colors.items():
            axes.plot([], [], "o", color=color, label=kind)
        axes.plot([], [], "o", color=style.INK, markerfacecolor="white", label=f"L0 is not about {L0_MATCHED}")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=-0.01)
        axes.set_xlabel("unexplained variance of templates (fvu) on people held out")
        axes.set_ylabel("share of judged features that are strongly read")
        axes.legend(loc="upper right")
        figure.draw_without_rendering()
        label(axes, [(x, y, f"{short(name)}, L0 {l0:.0f}", colors[origin(name)]) for name, (x, y, l0) in means.items()])


def label(axes: Axes, points: list[tuple[float, float, str, str]]) -> None:
    """Write a text (in a color) beside each point (x, y), where it covers neither a point nor another text."""
    places = axes.transData.transform([point[:2] for point in points])
    taken = [Bbox.from_extents(x - 9, y - 9, x + 9, y + 9) for x, y in places]
    for x, y, text, color in points:
        for (right, up), (ha, va) in itertools.product(((7, 6), (7, 14), (7, 22), (7, 30)), SIDES):
            offset = (SIGN[ha] * right, SIGN[va] * up)
            note = axes.annotate(
                text, (x, y), offset, textcoords="offset points", ha=ha, va=va, fontsize=8.5, color=color
            )
            note.set_in_layout(False)
            box = note.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1 and axes.bbox.y0 < box.y0
            if inside and not any(box.overlaps(other) for other in taken):
                break
            note.remove()
        else:
            raise ValueError(f"There is no room for {text!r} beside its point.")
        taken.append(box)


def origin(training: str) -> str:
    """Whether a training is one, a dictionary that is computed, or a control."""
    words = dict(word.split("=", 1) for word in training.split(" | ")[0].split())
    if "control" in words:
        return "control"
    preset: dict[str, Any] = TrainSettings.PRESETS.get(words.get("preset", ""), {})
    return "computed" if VARIANTS[words.get("variant") or preset["variant"]].directions else "trained"


def short(training: str) -> str:
    """A training without the settings that a reader need not know."""
    told = [word for word in training.split(" | ")[0].split() if not re.match(r"lr|center|target_l0|weight|k=", word)]
    words = [re.sub("^(variant|preset|control)=", "", word) for word in told if word != "expansion=1"]
    text = " ".join(words).replace("expansion=", "×").replace("whiten=256", "whitened").replace("init=", "from ")
    return text.replace("raw pca", "raw dimensions").replace("random_decoder topk", "topk, random decoder")


if __name__ == "__main__":
    main()
