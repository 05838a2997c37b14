"""Images of features per second: ours, all at once; the loop a user would write; lucent; Horama; and the floor.

    pip install torch-lucent horama    # optional: without them their lines are left out
    python benchmarks/visualize.py --recognizer onnx:mobilefacenet_b.onnx

The task: images of 112 × 112 pixels as Fourier coefficients (and, for us alone, two other parametrizations), the gate
of a feature through the same recognizer, no transforms, one forward and backward pass a step (Horama: of two crops,
which is the fewest that it takes). The floor is the
recognizer's forward and backward pass plus the parametrization's, bare, on the same batch. Rounds alternate; medians of
image steps per second are printed, with the ratio of each to ours.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import TopKSettings
from fsae_mlflow.visualization.making.optimization import Job, optimize
from fsae_mlflow.visualization.making.transforms import Transforms
from fsae_mlflow.visualization.objectives.gate import Gate
from fsae_mlflow.visualization.parametrizations.base import Parametrization
from fsae_mlflow.visualization.parametrizations.registry import load_parametrization
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target

N_FEATURES = 512
N_COMPONENTS = 300


def prior() -> FacePrior:
    """Made eigenfaces of the usual size: what they show does not change the speed."""
    torch.manual_seed(0)
    shape = (3, FACE_SIZE, FACE_SIZE)
    components = torch.linalg.qr(torch.randn(3 * FACE_SIZE**2, N_COMPONENTS)).Q.T.reshape(-1, *shape)
    return FacePrior(
        mean=torch.full(shape, 0.5),
        components=components.contiguous(),
        std=torch.ones(N_COMPONENTS),
        magnitude=torch.fft.rfft2(torch.rand(shape), norm="ortho").abs(),
        coefficients=torch.randn(100, N_COMPONENTS),
        rows=torch.arange(100),
    )


def made(name: str, generators: list[torch.Generator], faces: FacePrior) -> Parametrization:
    kind = load_parametrization(name)
    given: dict[str, Any] = {"prior": faces} if kind.needs_prior else {}
    if kind.default_start:
        given["start"] = faces.mean.expand(len(generators), -1, -1, -1)
    return kind(generators, **given)


def ours(
    name: str, jobs: list[Job], steps: int, recognizer: Recognizer, sae: SparseAutoencoder, faces: FacePrior
) -> None:
    real = RealTemplates(mean=np.zeros(sae.d_in), mean_norm=1.0, reach={}, maxima=np.ones(sae.d_sae))
    generators = [job.generator() for job in jobs]
    optimize(
        made(name, generators, faces),
        generators=generators,
        objective=Gate(sae, [job.target for job in jobs], real),
        recognizer=recognizer,
        steps=steps,
        lr=1e-3,
        transforms=Transforms(),
        record_every=10**6,
    )


def floor(name: str, n: int, steps: int, recognizer: Recognizer, faces: FacePrior) -> None:
    """Forward and backward passes of recognizer and parametrization, without anything between."""
    parametrization = made(name, [torch.Generator().manual_seed(seed) for seed in range(n)], faces)
    images = parametrization().detach().to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.ones_like(images)
    for _ in range(steps):
        recognizer(images).sum().backward()
        parametrization().backward(gradient)


def floor_in_bfloat16(n: int, steps: int, recognizer: Recognizer, faces: FacePrior) -> None:
    """The floor of fourier, computed in bfloat16 where PyTorch's autocast does so."""
    with torch.autocast("cpu", torch.bfloat16):
        floor("fourier", n, steps, recognizer, faces)


def agreement(recognizer: Recognizer) -> float:
    """The cosine of the gradients that an image gets in float32 and in bfloat16; mean of 16 images."""
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        images = torch.rand(16, 3, FACE_SIZE, FACE_SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            recognizer(images)[:, 0].float().sum().backward()
        assert images.grad is not None
        gradients.append(images.grad.flatten(1))
    return float(nn.functional.cosine_similarity(*gradients).mean())


def loop(jobs: list[Job], steps: int, recognizer: nn.Module, sae: SparseAutoencoder, faces: FacePrior) -> None:
    """One image after the other, as a user would write it with the same parametrization."""
    for job in jobs:
        parametrization = made("fourier", [job.generator()], faces)
        optimizer = torch.optim.AdamW(parametrization.parameters(), lr=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            gate = sae.gate_preactivation(recognizer(parametrization()))[0, job.target.feature]
            (-gate).backward()
            optimizer.step()


class Gates(nn.Module):
    """Image → the SAE's gates, for peers that look at a model's output."""

    def __init__(self, recognizer: nn.Module, sae: SparseAutoencoder) -> None:
        super().__init__()
        self.recognizer, self.gates = recognizer, nn.Linear(sae.d_in, sae.d_sae)
        with torch.no_grad():
            self.gates.weight.copy_(sae.W_enc)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.gates(self.recognizer(images))


def peers(jobs: list[Job], steps: int, model: Gates) -> dict[str, Callable[[], None]]:
    """The peers that are installed: each makes one image after the other."""
    found: dict[str, Callable[[], None]] = {}
    with contextlib.suppress(ImportError):
        from lucent.optvis import param, render  # pyright: ignore[reportMissingImports]

        def lucent() -> None:
            for job in jobs:
                render.render_vis(
                    model,
                    lambda layer, feature=job.target.feature: -layer("gates")[0, feature],
                    lambda: param.image(FACE_SIZE, fft=True, decorrelate=True),
                    transforms=[],
                    thresholds=(steps,),
                    preprocess=False,
                    progress=False,
                    show_image=False,
                    fixed_image_size=FACE_SIZE,
                )

        found["lucent"] = lucent
    with contextlib.suppress(ImportError):
        from horama import fourier  # pyright: ignore[reportMissingImports]

        def horama() -> None:
            for job in jobs:
                with contextlib.redirect_stderr(io.StringIO()):
                    fourier(
                        lambda images, feature=job.target.feature: model(images)[:, feature].mean(),
                        total_steps=steps,
                        image_size=FACE_SIZE,
                        model_input_size=FACE_SIZE,
                        crops_per_iteration=2,  # with one it fails
                        noise=0.0,
                        values_range=(0, 1),
                        device="cpu",
                    )

        found["Horama"] = horama
    return found


def main() -> None:
    """Time everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recognizer", default="tiny")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    recognizer = load_recognizer(options.recognizer).eval().requires_grad_(False)
    torch.manual_seed(0)
    sae = untrained(TopKSettings(), recognizer.card.template_width, N_FEATURES).eval().requires_grad_(False)
    faces, steps = prior(), options.steps
    jobs = [Job(target=Target((feature,)), seed=0) for feature in range(options.images)]
    few = jobs[: max(1, options.images // 4)]

    timed: dict[str, tuple[Callable[[], None], int]] = {}
    for name in ("fourier", "eigenfaces", "dip"):
        timed[f"ours, {name}"] = (lambda name=name: ours(name, jobs, steps, recognizer, sae, faces), len(jobs))
        timed[f"floor, {name}"] = (lambda name=name: floor(name, len(jobs), steps, recognizer, faces), len(jobs))
    timed["floor in bfloat16, fourier"] = (
        lambda: floor_in_bfloat16(len(jobs), steps, recognizer, faces),
        len(jobs),
    )
    timed["loop, fourier"] = (lambda: loop(few, steps, recognizer, sae, faces), len(few))
    for name, run in peers(few, steps, Gates(recognizer, sae)).items():
        timed[f"{name}, fourier"] = (run, len(few))
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(options.rounds):
        for name, (run, n) in timed.items():
            started = time.perf_counter()
            run()
            rates[name].append(n * steps / (time.perf_counter() - started))
    print("| | image steps/s | ours, of the same parametrization, is |\n|---|---|---|")
    for name, found in rates.items():
        own = rates[f"ours, {name.split(', ')[1]}"]
        ratio = statistics.median(a / b for a, b in zip(own, found, strict=True))
        print(f"| {name} | {statistics.median(found):.1f} | {ratio:.2f} × |")
    print(f"\nGradients in bfloat16 have a cosine of {agreement(recognizer):.3f} with those in float32.")


if __name__ == "__main__":
    main()
