"""What it costs to split the similarities of pairs into features, beside encoding their templates, on the CPU.

    python benchmarks/explain.py
    python benchmarks/explain.py --templates LFW --pairs pairs.txt --sae SAE

`encode` encodes the templates of all pairs, `explain` is `contributions` of all pairs given their features, `loop` what
a user would write: for each pair the dense features of both faces times the decoder. They take turns, so that a busy
machine slows all of them alike; `loop` does --looped of the pairs and is scaled. Medians and ratios to `encode`.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from feature_pass import biased_sae, made_templates

from fsae_mlflow.explanation.contributions import Decoder, contributions
from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.sae.saved import load_sae
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.pairs import find_rows, pairs_path, read_pairs

BATCH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", default="")
    parser.add_argument("--pairs", default="")
    parser.add_argument("--sae", default="", help="A saved SAE; empty: random directions, of which --l0 fire.")
    parser.add_argument("--n_pairs", type=int, default=6000)
    parser.add_argument("--d_in", type=int, default=512)
    parser.add_argument("--d_sae", type=int, default=65_536)
    parser.add_argument("--effective_dimension", type=int, default=186)
    parser.add_argument("--l0", type=float, default=105)
    parser.add_argument("--variant", choices=["gated", "topk"], default="gated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--looped", type=int, default=20)
    options = parser.parse_args()
    if options.templates:
        templates = TemplateSet.open(options.templates)
        pairs = find_rows(read_pairs(pairs_path(options.pairs)), templates, source=options.pairs)
        x = templates.templates_of(pairs.rows)
        first, second = (np.searchsorted(pairs.rows, side) for side in (pairs.first, pairs.second))
    else:
        n = round(1.28 * options.n_pairs)  # LFW's 6,000 pairs are of 7,701 pictures
        x = made_templates(n, options).numpy()
        first, second = np.random.default_rng(0).integers(n, size=(2, options.n_pairs))
    sae = load_sae(options.sae).eval() if options.sae else biased_sae(torch.from_numpy(x), options)
    decoder, looped = Decoder.of(sae), np.arange(options.looped)

    def encode() -> Entries:
        return Entries.joined([batch.entries for batch in encoded(sae, x, batch_size=BATCH)])

    entries = encode()

    def explain() -> None:
        contributions(decoder, entries, x, first, second)

    @torch.no_grad()
    def loop() -> None:
        for a, b in zip(first[looped], second[looped], strict=True):
            features = sae.encode(torch.from_numpy(x[[a, b]]))
            parts = [one[:, None] * sae.W_dec / sae.scale for one in features]
            x_hat = sae.decode(features)
            ((parts[0] @ x_hat[1] + parts[1] @ x_hat[0]) / (2 * x_hat.norm(dim=1).prod())).sum()

    steps: dict[str, Callable[[], object]] = {"encode": encode, "explain": explain, "loop": loop}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(options.rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - started)
    median = {name: float(np.median(seconds)) for name, seconds in times.items()}
    median["loop"] *= len(first) / len(looped)
    print(
        json.dumps(
            {
                "pairs": len(first),
                "d_sae": sae.d_sae,
                "l0": round(float(entries.per_row().mean()), 1),
                "seconds": {name: round(value, 3) for name, value in median.items()},
                "ratio": {name: round(value / median["encode"], 3) for name, value in median.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
