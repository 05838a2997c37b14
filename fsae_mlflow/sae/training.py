"""Training of a sparse autoencoder on a template set."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fsae_mlflow.compute import choose_device
from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import Loss, SparseAutoencoder
from fsae_mlflow.sae.checkpoint import save_sae
from fsae_mlflow.sae.measures import Measures, measure
from fsae_mlflow.sae.registry import VARIANTS
from fsae_mlflow.sae.resampling import resample
from fsae_mlflow.sae.settings import TrainSettings
from fsae_mlflow.sae.split import holdout_rows
from fsae_mlflow.templates import TemplateSet

# Templates measured after each epoch: enough for three digits, a small share of an epoch on large sets.
MEASURED_ROWS = 10_000

OnMetrics = Callable[[dict[str, float], int], None]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training: the SAE's folder, the SAE, and its measures on training and held-out templates."""

    folder: Path
    sae: SparseAutoencoder
    train: Measures
    heldout: Measures | None
    templates_per_second: float

    @property
    def figures(self) -> dict[str, float]:
        """The final metrics by name."""
        heldout = self.heldout.metrics("heldout") if self.heldout else {}
        return self.train.metrics("train") | heldout | {"templates_per_second": self.templates_per_second}


def train(settings: TrainSettings, *, templates: TemplateSet, output: Path, on_metrics: OnMetrics) -> Trained:
    """Train an SAE on `templates` and save it in the folder `output`.

    After every epoch `on_metrics` gets the loss terms, l0, sum of densities, fvu, cosine and alive share on training and
    held-out templates (up to 10,000 of each), the learning rate and the templates per second; its step is the epoch.

    Raises: ValueError for an empty template set; FloatingPointError when the loss stops being finite.
    """
    if len(templates) == 0:
        raise ValueError(f"templates: {templates.folder} holds no template; see its failures.parquet for the reasons.")
    device = choose_device(settings.device)
    torch.manual_seed(settings.seed)
    held = torch.from_numpy(holdout_rows(templates.identities, settings.holdout, seed=settings.seed))
    x = torch.from_numpy(templates.templates)
    scale = 1 / math.sqrt(float(x[~held].double().square().sum(dim=1).mean()))
    x_train, x_held = (x[~held] * scale).to(device), (x[held] * scale).to(device)

    sae = VARIANTS[settings.variant](templates.width, settings.expansion * templates.width, lam=settings.lam, scale=scale)
    with torch.no_grad():
        sae.b_dec.copy_(x_train.mean(dim=0))
    trainer = Trainer(settings, sae.to(device), x_train)
    epochs = range(1, settings.epochs + 1)
    for epoch in progress(epochs, total=settings.epochs, label="train_sae", unit="epochs"):
        metrics = trainer.run_epoch(epoch)
        metrics |= measure(sae, x_train[:MEASURED_ROWS]).metrics("train")
        if len(x_held):
            metrics |= measure(sae, x_held[:MEASURED_ROWS]).metrics("heldout")
        on_metrics(metrics, epoch)

    final = measure(sae, x_train)
    sae.density.copy_(torch.from_numpy(final.density))
    sae.cpu().eval().requires_grad_(False)
    save_sae(sae, output, settings=dataclasses.asdict(settings), templates={"digest": templates.digest, **templates.metadata})
    return Trained(
        folder=output,
        sae=sae,
        train=final,
        heldout=measure(sae, x_held.cpu()) if len(x_held) else None,
        templates_per_second=trainer.templates_per_second,
    )


class Trainer:
    """One SAE, its optimiser and its place in the schedule."""

    def __init__(self, settings: TrainSettings, sae: SparseAutoencoder, x: Float[Tensor, "n d_in"]) -> None:
        self.settings = settings
        self.sae = sae
        self.x = x
        self.optimizer = make_optimizer(settings, sae)
        self.step = 0
        self.n_steps = settings.epochs * math.ceil(len(x) / settings.batch_size)
        self.steps_since_resampling = 0
        self.fired: Bool[Tensor, " d_sae"] = torch.zeros(sae.d_sae, dtype=torch.bool, device=x.device)
        self.seconds = 0.0

    @property
    def templates_per_second(self) -> float:
        """Throughput of the optimisation alone, measuring left out."""
        return self.step * self.settings.batch_size / self.seconds if self.seconds else 0.0

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the templates in a seeded order, then resampling when it is due."""
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        for rows in order.split(self.settings.batch_size):
            self.run_step(self.x[rows])
        n_resampled = self._resample(generator) if self._resampling_due(epoch) else 0
        self.seconds += time.perf_counter() - started
        return {
            "lr": self.optimizer.param_groups[0]["lr"],
            "n_resampled": float(n_resampled),
            "templates_per_second": self.templates_per_second,
        }

    def run_step(self, batch: Float[Tensor, "batch d_in"]) -> Loss:
        """One optimiser step on scaled templates."""
        rate = learning_rate(self.settings, self.step, self.n_steps, self.steps_since_resampling)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.sae.loss(batch)
        self._require_finite(loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        self.sae.remove_parallel_gradient()
        self.optimizer.step()
        self.sae.normalize_decoder()
        self.fired |= loss.fired
        self.step += 1
        self.steps_since_resampling += 1
        return loss

    def _resampling_due(self, epoch: int) -> bool:
        every = self.settings.resample_every
        return every > 0 and epoch % every == 0 and epoch <= self.settings.resample_until * self.settings.epochs

    @torch.no_grad()
    def _resample(self, generator: torch.Generator) -> int:
        n_resampled = resample(self.sae, self.optimizer, ~self.fired, self.x, generator=generator)
        if n_resampled:
            self.steps_since_resampling = 0
        self.fired.zero_()
        return n_resampled

    def _require_finite(self, loss: Loss) -> None:
        if math.isfinite(float(loss.total.detach())):
            return
        terms = ", ".join(f"{name} {value}" for name, value in loss.as_floats().items() if not math.isfinite(value))
        raise FloatingPointError(f"The loss is not finite at step {self.step} ({terms}); lower lr ({self.settings.lr}) or check the templates.")


def make_optimizer(settings: TrainSettings, sae: SparseAutoencoder) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and r_mag have no scale to decay."""
    matrices = [parameter for parameter in sae.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in sae.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)


def learning_rate(settings: TrainSettings, step: int, n_steps: int, steps_since_resampling: int) -> float:
    """Cosine from `lr` to `lr_end` over the training, times a linear warm-up after its start and each resampling."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, n_steps - 1)))
    rate = settings.lr_end + (settings.lr - settings.lr_end) * cosine
    return rate * min(1.0, (steps_since_resampling + 1) / (settings.lr_warmup + 1))
