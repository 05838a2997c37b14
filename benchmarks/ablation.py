"""What leaving out every feature costs, beside encoding the pairs' templates, and beside the loop that decodes anew.

    python benchmarks/ablation.py --templates outputs/lfw/templates --pairs pairs.txt

`encode` is the encoding of all images of the pairs; `ablation` the rates without each feature and their jackknife, in
one pass (verification/ablation). The peers leave out a few features one by one and verify all pairs, without intervals;
their time is extrapolated to all features. `decode anew` decodes all images, `subtract` takes the feature's part from
decoded templates. They take turns, so that a busy machine slows all alike; medians are reported. The SAE is not
trained: random directions of which about --l0 fire on a template. Without --templates, templates and 6,000 pairs are
made.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from feature_pass import biased_sae, made_templates

from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.sparse import sparse_encoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.ablation.measurement import FARS, Verifier
from fsae_mlflow.verification.pairs import RowPairs, find_rows, read_pairs
from fsae_mlflow.verification.protocol import equal_error_rate, squared_distances, tar_at_far

N_IMAGES, N_PAIRS, N_FOLDS, BATCH = 7701, 6000, 10, 1024


def read(options: argparse.Namespace) -> tuple[np.ndarray, RowPairs]:
    """The templates of all images of the pairs, and the pairs as rows of them."""
    if options.templates:
        templates = TemplateSet.open(options.templates)
        pairs = find_rows(read_pairs(Path(options.pairs)), templates, source=options.pairs)
        rows = pairs.rows
        places = {"first": np.searchsorted(rows, pairs.first), "second": np.searchsorted(rows, pairs.second)}
        return templates.templates_of(rows), RowPairs(**places, genuine=pairs.genuine, fold=pairs.fold)
    generator = np.random.default_rng(0)
    first, second = generator.permutation(2 * N_PAIRS).reshape(2, -1) % N_IMAGES
    fold = np.arange(N_PAIRS) * N_FOLDS // N_PAIRS
    genuine = generator.random(N_PAIRS) < 0.5
    return made_templates(N_IMAGES, options).numpy(), RowPairs(first=first, second=second, genuine=genuine, fold=fold)


def encode(sae: SparseAutoencoder, templates: np.ndarray) -> None:
    for _ in encoded(sae, templates, batch_size=BATCH):
        pass


def verify(templates: np.ndarray, pairs: RowPairs) -> None:
    distances = squared_distances(templates[pairs.first], templates[pairs.second])
    for far in FARS:
        tar_at_far(distances, pairs.genuine, far)
    equal_error_rate(distances, pairs.genuine)


def decode_anew(verifier: Verifier, pairs: RowPairs, sae: SparseAutoencoder, features: np.ndarray) -> None:
    encoder = sparse_encoder(sae, torch.from_numpy(verifier.decoded[:64]))
    for feature in features:
        left = encoder.decoded(verifier.entries.of_features(np.arange(sae.d_sae) != feature))
        verify((left / sae.scale + sae.center).numpy(), pairs)


def subtract(verifier: Verifier, pairs: RowPairs, features: np.ndarray) -> None:
    for feature in features:
        place = verifier.entries.place_of(feature)
        left = verifier.decoded.copy()
        left[verifier.entries.rows[place]] -= verifier.values[place, None] * verifier.W_dec[feature]
        verify(left, pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d_sae", type=int, default=65_536)
    parser.add_argument("--d_in", type=int, default=512)
    parser.add_argument("--l0", type=float, default=100)
    parser.add_argument("--variant", choices=("gated", "topk"), default="gated")
    parser.add_argument("--effective_dimension", type=int, default=186)
    parser.add_argument("--templates", help="A template set that has the images of --pairs, in place of made ones.")
    parser.add_argument("--pairs", help="Pairs file.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--some", type=int, default=5, help="Features that the peers leave out in a round.")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    templates, pairs = read(options)
    unit = torch.nn.functional.normalize(torch.tensor(templates), dim=1)
    sae = biased_sae(unit, options)
    verifier = Verifier(sae, unit.numpy(), pairs, batch_size=BATCH)
    some = np.random.default_rng(0).permutation(sae.d_sae)[: options.some]
    contenders = {
        "encode": lambda: encode(sae, unit.numpy()),
        "ablation": verifier.without_each,
        "subtract": lambda: subtract(verifier, pairs, some),
        "decode anew": lambda: decode_anew(verifier, pairs, sae, some),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.rounds + 1):  # the first one compiles
        for name, step in contenders.items():
            started = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    l0 = len(verifier.entries.rows) / verifier.entries.n_rows
    print(f"{options.variant}, d_sae {sae.d_sae:,}, {len(templates):,} images, {len(pairs):,} pairs, L0 {l0:.0f}")
    print(f"{int((verifier.entries.counts > 0).sum()):,} features fire; {options.threads} threads")
    of_encoding = np.median(seconds["encode"])
    for name, taken in seconds.items():
        each = np.array(taken) * (1 if name in ("encode", "ablation") else sae.d_sae / len(some))
        span = f"({each.min():,.1f}–{each.max():,.1f})"
        print(f"{name:12} {np.median(each):10,.1f} s {span:>20} {np.median(each) / of_encoding:8,.2f} × encode")


if __name__ == "__main__":
    main()
