"""How long a gated SAE's training step takes on the CPU, beside plain PyTorch, SAELens and dictionary_learning.

    python benchmarks/train_step.py --d_sae 65536 --l0 100 --peers

Every contender has its own process, hence its own peak memory. They take their steps in turn, so that a busy machine
slows all of them alike. Medians and their ratios are reported. `floor` is a bare float32 product of the encoder
plus reading and writing what AdamW must touch. --peers installs the two peers under outputs/peers, on top of this
environment.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fsae_mlflow.sae.optimizer import AdamW
from fsae_mlflow.sae.variants.gated import GatedSAE
from fsae_mlflow.sae.variants.settings import GatedSettings

PEERS = Path("outputs/peers")
OWN = ["dense", "fused", "fused_float32", "floor"]
LAM, RATE = 0.1, 1e-6


def templates(batch: int, d_in: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(batch, d_in, generator=torch.Generator().manual_seed(1)), dim=1)


def biased_sae(d_in: int, d_sae: int, l0: float) -> GatedSAE:
    """A gated SAE whose biases let about `l0` features fire."""
    torch.manual_seed(0)
    sae = GatedSAE(d_in, d_sae, GatedSettings(lam=LAM))
    with torch.no_grad():
        projected = sae.projected(templates(1024, d_in)[:16]).flatten()
        level = torch.topk(projected, max(1, round(16 * l0))).values[-1]
        sae.b_gate.fill_(-level)
        sae.b_mag.fill_(-level)
    return sae


def dense_step(sae: GatedSAE, x: torch.Tensor) -> Callable[[], float]:
    """The step as one writes it in PyTorch."""
    optimizer = torch.optim.AdamW(sae.parameters(), lr=RATE, fused=True)

    def step() -> float:
        projected = (x - sae.b_dec) @ sae.W_enc.T
        gate = torch.relu(projected + sae.b_gate)
        features = (gate > 0) * torch.relu(sae.r_mag.exp() * projected + sae.b_mag)
        frozen = gate @ sae.W_dec.detach() + sae.b_dec.detach()
        loss = (x - features @ sae.W_dec - sae.b_dec).square().sum(1).mean() + LAM * gate.sum(1).mean()
        loss = loss + (x - frozen).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        sae.remove_parallel_gradient()
        optimizer.step()
        sae.normalize_decoder()
        return float((features.detach() > 0).sum()) / len(x)

    return step


def fused_step(sae: GatedSAE, x: torch.Tensor, *, screened: bool) -> Callable[[], float]:
    from fsae_mlflow.sae.fused.step import FusedStep

    fused = FusedStep(sae, AdamW.of(sae, lr=RATE, betas=(0.9, 0.999), weight_decay=0.01))
    fused.screened = fused.screened and screened

    def step() -> float:
        fused.forward(x, sparsity_weight=LAM)
        l0 = sum(float((block.p > sae.firing_level()[block.first]).sum()) for block in fused.blocks) / len(x)
        fused.update()
        return l0

    return step


def floor_step(sae: GatedSAE, x: torch.Tensor) -> Callable[[], float]:
    weights = sae.W_enc.detach()
    block = max(64, (1 << 22) // len(x))
    moments = [torch.zeros_like(weights) for _ in range(6)]

    def step() -> float:
        for first in range(0, len(weights), block):
            torch.mm(weights[first : first + block], x.T)
        for moment in moments:  # two matrices with two moments each are read and written once
            moment.add_(1.0)
        return 0.0

    return step


def saelens_step(sae: GatedSAE, x: torch.Tensor) -> Callable[[], float]:
    from sae_lens.saes.gated_sae import GatedTrainingSAE, GatedTrainingSAEConfig  # pyright: ignore[reportMissingImports]
    from sae_lens.saes.sae import TrainStepInput  # pyright: ignore[reportMissingImports]

    peer = GatedTrainingSAE(GatedTrainingSAEConfig(d_in=sae.d_in, d_sae=sae.d_sae, l1_coefficient=LAM))
    with torch.no_grad():
        peer.W_enc.copy_(sae.W_enc.T)
        peer.W_dec.copy_(sae.W_dec)
        peer.b_gate.copy_(sae.b_gate)
        peer.b_mag.copy_(sae.b_mag)
    optimizer = torch.optim.Adam(peer.parameters(), lr=RATE)

    def step() -> float:
        given = TrainStepInput(
            sae_in=x, coefficients={"l1": LAM}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
        )
        output = peer.training_forward_pass(given)
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        return float((output.feature_acts.detach() > 0).sum()) / len(x)

    return step


def dictionary_learning_step(sae: GatedSAE, x: torch.Tensor) -> Callable[[], float]:
    from dictionary_learning.trainers.gdm import GatedSAETrainer  # pyright: ignore[reportMissingImports]

    trainer = GatedSAETrainer(10**6, sae.d_in, sae.d_sae, 0, "", lr=RATE, l1_penalty=LAM, device="cpu")
    with torch.no_grad():
        trainer.ae.encoder.weight.copy_(sae.W_enc)
        trainer.ae.decoder.weight.copy_(sae.W_dec.T)
        trainer.ae.gate_bias.copy_(sae.b_gate)
        trainer.ae.mag_bias.copy_(sae.b_mag)

    def step() -> float:
        trainer.update(1000, x)
        return 0.0

    return step


CONTENDERS: dict[str, Callable[[GatedSAE, torch.Tensor], Callable[[], float]]] = {
    "dense": dense_step,
    "fused": lambda sae, x: fused_step(sae, x, screened=True),
    "fused_float32": lambda sae, x: fused_step(sae, x, screened=False),
    "floor": floor_step,
    "sae_lens": saelens_step,
    "dictionary_learning": dictionary_learning_step,
}


def work(name: str, options: argparse.Namespace) -> None:
    """Take a step for every line on stdin; answer with its seconds, L0 and the process's peak memory."""
    torch.set_num_threads(options.threads)
    x = templates(options.batch, options.d_in)
    step = CONTENDERS[name](biased_sae(options.d_in, options.d_sae, options.l0), x)
    for _ in sys.stdin:
        started = time.perf_counter()
        l0 = step()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "l0": l0, "peak_gib": peak}), flush=True)


def peer_python() -> str:
    """A Python that sees this environment and, on top of it, the peers."""
    python = PEERS / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        site = next((PEERS / "lib").glob("python*/site-packages"))
        here = Path(torch.__file__).parents[1]
        (site / "below.pth").write_text(f"{here}\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "sae-lens", "dictionary-learning"], check=True)
    return str(python)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d_sae", type=int, default=65_536)
    parser.add_argument("--d_in", type=int, default=512)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--l0", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", action="store_true", help="Measure SAELens and dictionary_learning too.")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        work(options.contender, options)
        return
    names = OWN + (["sae_lens", "dictionary_learning"] if options.peers else [])
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(Path(__file__).parents[1])}
    workers = {}
    for name in names:
        python = sys.executable if name in OWN else peer_python()
        command = [python, __file__, "--contender", name]
        command += [f"--{key}={getattr(options, key)}" for key in ("d_sae", "d_in", "batch", "l0", "threads")]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(options.rounds + 1):
        for name, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            print("step", file=worker.stdin, flush=True)
            results[name].append(json.loads(worker.stdout.readline()))
        print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.communicate()
    report(options, {name: taken[1:] for name, taken in results.items()})


def report(options: argparse.Namespace, results: dict[str, list[dict[str, float]]]) -> None:
    """Medians, their ratios to the dense step, and the range that the rounds span."""
    medians = {name: sorted(r["seconds"] for r in taken)[len(taken) // 2] for name, taken in results.items()}
    l0 = results["dense"][-1]["l0"]
    print(f"d_sae {options.d_sae}, d_in {options.d_in}, batch {options.batch}, L0 {l0:.0f}, {options.threads} threads")
    print(f"{'':20} {'median s':>9} {'min–max s':>15} {'dense / it':>11} {'peak GiB':>9}")
    for name, taken in results.items():
        seconds = [r["seconds"] for r in taken]
        span = f"{min(seconds):.3f}–{max(seconds):.3f}"
        ratio = medians["dense"] / medians[name]
        print(f"{name:20} {medians[name]:9.3f} {span:>15} {ratio:11.2f} {taken[-1]['peak_gib']:9.2f}")


if __name__ == "__main__":
    main()
