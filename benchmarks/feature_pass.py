"""What one pass over templates costs on the CPU, beside the bare encoder product, and how much memory it needs.

    python benchmarks/feature_pass.py
    python benchmarks/feature_pass.py --effective_dimension 512
    python benchmarks/feature_pass.py --memory --d_sae 4096

Every contender has its own process. They take batches in turn, so that a busy machine slows all of them alike. Medians
and their ratios to `floor`, the bare float32 product of the encoder, are reported. `survey` is what describes features,
`measure` what a training measures itself by, `dense_measure` the same on all entries. Without --templates, templates
are made whose leading --effective_dimension principal directions have 99.99 % of the variance. --memory surveys 15
thousand and a million made templates from disk and reports the largest resident size.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import GatedSettings, TopKSettings
from fsae_mlflow.templates.schema import FaceRow
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.writing import finish, write_shard

BATCHES, SHARD_ROWS = 6, 10_000
VARIANCE = 0.9999
Contender = Callable[[torch.Tensor, int], float]


def made_templates(n: int, options: argparse.Namespace, seed: int = 1) -> torch.Tensor:
    """Unit templates whose variance falls from one principal direction to the next by a constant factor."""
    d_in, fade = options.d_in, -math.log(1 - VARIANCE) / options.effective_dimension
    if options.effective_dimension == d_in:
        fade = 0.0
    turn = torch.linalg.qr(torch.randn(d_in, d_in, generator=torch.Generator().manual_seed(0))).Q
    spectrum = torch.exp(-0.5 * fade * torch.arange(d_in))
    found = torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed)) * spectrum @ turn
    return torch.nn.functional.normalize(found, dim=1)


def read_templates(options: argparse.Namespace) -> torch.Tensor:
    n = BATCHES * options.batch
    if not options.templates:
        return made_templates(n, options)
    templates = torch.from_numpy(TemplateSet.open(options.templates).templates)
    rows = torch.randperm(len(templates), generator=torch.Generator().manual_seed(0))[:n]
    return torch.nn.functional.normalize(templates[rows], dim=1)


def biased_sae(x: torch.Tensor, options: argparse.Namespace) -> SparseAutoencoder:
    """An SAE of random directions of which about `l0` fire on a template."""
    torch.manual_seed(0)
    settings = TopKSettings(k=round(options.l0)) if options.variant == "topk" else GatedSettings(lam=0.1)
    sae = untrained(settings, options.d_in, options.d_sae)
    with torch.no_grad():
        sae.b_dec.copy_(x.mean(dim=0))
        sae.W_enc.div_(sae.W_enc.norm(dim=1, keepdim=True))
        if options.variant == "gated":
            level = torch.topk(sae.projected(x[:64]).flatten(), round(64 * options.l0)).values[-1]
            for name in ("b_gate", "b_mag"):
                getattr(sae, name).fill_(-level)
    return sae.eval().requires_grad_(False)


def floor(sae: SparseAutoencoder) -> Contender:
    block = 4096

    def step(batch: torch.Tensor, _: int) -> float:
        centered = batch - sae.b_dec
        for first in range(0, sae.d_sae, block):
            torch.mm(sae.W_enc[first : first + block], centered.T)
        return 0.0

    return step


def survey(sae: SparseAutoencoder, x: torch.Tensor) -> Contender:
    from fsae_mlflow.features.activity.survey import Survey
    from fsae_mlflow.sae.sparse import sparse_encoder

    encoder, found = sparse_encoder(sae, x), Survey(sae.d_sae, 24)
    people = (np.arange(len(x)) // 20).astype(np.uint64)

    def step(batch: torch.Tensor, first: int) -> float:
        entries = encoder.entries(batch)
        found.add(entries, people[: len(batch)] + first, first=first, norms=np.linalg.norm(batch.numpy(), axis=1))
        found.fidelity.add(sae.scaled(batch), encoder.decoded(entries))
        return len(entries.rows) / len(batch)

    return step


def measuring(sae: SparseAutoencoder, x: torch.Tensor, *, active: bool) -> Contender:
    from fsae_mlflow.metrics import Fidelity, Sparsity
    from fsae_mlflow.sae.fused.encoder import Encoder

    fidelity, sparsity = Fidelity(), Sparsity(sae.d_sae)
    encoder = Encoder(sae, x) if active else None

    def step(batch: torch.Tensor, _: int) -> float:
        loss = sae.loss(batch, training=False) if encoder is None else encoder.loss(batch)
        fidelity.add(batch, loss.x_hat)
        sparsity.add(loss.counts, len(batch))
        return float(loss.counts.sum()) / len(batch)

    return step


CONTENDERS: dict[str, Callable[[SparseAutoencoder, torch.Tensor], Contender]] = {
    "floor": lambda sae, _: floor(sae),
    "survey": survey,
    "measure": lambda sae, x: measuring(sae, x, active=True),
    "dense_measure": lambda sae, x: measuring(sae, x, active=False),
}


def work(name: str, options: argparse.Namespace) -> None:
    """Tell the seconds of the set-up; then take a batch for every line on stdin, and answer with its seconds and L0."""
    torch.set_num_threads(options.threads)
    x = read_templates(options)
    sae = biased_sae(x, options)
    started = time.perf_counter()
    step = CONTENDERS[name](sae, x)
    print(json.dumps({"set_up": time.perf_counter() - started}), flush=True)
    for number, _ in enumerate(sys.stdin):
        batch = x[number % BATCHES * options.batch :][: options.batch]
        started, cpu = time.perf_counter(), time.process_time()
        l0 = step(batch, number * options.batch)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(json.dumps({"seconds": seconds, "cpu": cpu, "l0": l0}), flush=True)


def write_set(folder: Path, n: int, options: argparse.Namespace) -> None:
    """A set of made templates, twenty of a person, without faces."""
    for number, first in enumerate(range(0, n, SHARD_ROWS)):
        templates = made_templates(min(SHARD_ROWS, n - first), options, seed=number).numpy()
        rows = [_row(first + row, template) for row, template in enumerate(templates)]
        write_shard(folder, number, rows, [], width=options.d_in, n_pictures=len(rows))
    finish(folder, n_shards=-(-n // SHARD_ROWS), width=options.d_in, metadata={})


def _row(number: int, template: np.ndarray) -> FaceRow:
    return FaceRow(
        image_id=f"{number // 20}/{number}",
        identity=str(number // 20),
        template=template,
        probability=1.0,
        box=np.zeros(4, np.float32),
        keypoints=np.zeros((5, 2), np.float32),
        source_width=112,
        source_height=112,
        yaw=0.0,
        sharpness=0.0,
        interocular=50.0,
        jpeg=b"",
    )


def survey_set(options: argparse.Namespace) -> None:
    from fsae_mlflow.features.activity.survey import survey as whole_survey

    torch.set_num_threads(options.threads)
    sae = biased_sae(made_templates(1024, options), options)
    started = time.perf_counter()
    found = whole_survey(sae, TemplateSet.open(options.templates)).activity
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{found.n_faces:,} templates: L0 {found.l0:.0f}, {seconds:.0f} s, peak {peak:.0f} MiB", flush=True)


def measure_memory(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for n in (15_000, 1_000_000):
            folder = Path(scratch) / str(n)
            folder.mkdir()
            write_set(folder, n, options)
            for _ in range(2):
                subprocess.run(_command(options, "memory", templates=folder), check=True, env=_environment(options))


def _command(options: argparse.Namespace, contender: str, **changed: object) -> list[str]:
    given = {key: value for key, value in (vars(options) | changed).items() if value is not None}
    names = ("d_sae", "d_in", "batch", "l0", "threads", "variant", "effective_dimension", "templates")
    return [
        sys.executable,
        __file__,
        "--contender",
        contender,
        *(f"--{key}={given[key]}" for key in names if key in given),
    ]


def _environment(options: argparse.Namespace) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(Path(__file__).parents[1])}


def answers(worker: "subprocess.Popen[str]") -> Iterator[dict[str, float]]:
    assert worker.stdin is not None and worker.stdout is not None
    yield json.loads(worker.stdout.readline())
    while True:
        print("step", file=worker.stdin, flush=True)
        yield json.loads(worker.stdout.readline())


def compare(options: argparse.Namespace) -> None:
    names = [name for name in CONTENDERS if name not in options.without]
    workers = {
        name: subprocess.Popen(
            _command(options, name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(options)
        )
        for name in names
    }
    taken = {name: answers(worker) for name, worker in workers.items()}
    set_up = {name: next(one)["set_up"] for name, one in taken.items()}
    for one in taken.values():
        next(one)  # compiles
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name, one in taken.items():
            results[name].append(next(one))
    for worker in workers.values():
        worker.communicate()
    report(options, set_up, results)


def report(options: argparse.Namespace, set_up: dict[str, float], results: dict[str, list[dict[str, float]]]) -> None:
    """Medians, and the median over rounds of each contender's ratio to the floor in its round: of the time that passed
    and of the processor's, which tells more on a busy machine.
    """
    kind = options.templates or f"made templates of effective dimension {options.effective_dimension}"
    l0 = results["survey"][-1]["l0"]
    sizes = f"d_sae {options.d_sae}, batch {options.batch}, L0 {l0:.0f}, {options.threads} threads"
    print(f"{options.variant}, {sizes}, {kind}")
    print(f"{'':15} {'median s':>9} {'min–max s':>15} {'it / floor':>11} {'processor':>10} {'set-up s':>9}")
    for name, rounds in results.items():
        seconds = [r["seconds"] for r in rounds]
        ratio, cpu = (
            np.median([mine[key] / theirs[key] for mine, theirs in zip(rounds, results["floor"], strict=True)])
            for key in ("seconds", "cpu")
        )
        span = f"{min(seconds):.3f}–{max(seconds):.3f}"
        print(f"{name:15} {np.median(seconds):9.3f} {span:>15} {ratio:11.2f} {cpu:10.2f} {set_up[name]:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d_sae", type=int, default=65_536)
    parser.add_argument("--d_in", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--l0", type=float, default=100)
    parser.add_argument("--variant", choices=("gated", "topk"), default="gated")
    parser.add_argument("--effective_dimension", type=int, default=186)
    parser.add_argument("--templates", help="A template set, in place of made templates.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], choices=tuple(CONTENDERS), help="Contenders to leave out.")
    parser.add_argument("--memory", action="store_true", help="Peak memory of surveys of two sizes.")
    parser.add_argument("--scratch", help="Where --memory writes its 2 GB of templates.")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender == "memory":
        survey_set(options)
    elif options.contender:
        work(options.contender, options)
    elif options.memory:
        measure_memory(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
