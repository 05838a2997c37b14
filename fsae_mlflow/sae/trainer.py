"""One SAE, its optimiser and its place in the schedule."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsae_mlflow.sae.adam import learning_rate, make_optimizer
from fsae_mlflow.sae.base import Loss, SparseAutoencoder
from fsae_mlflow.sae.data import TrainingData
from fsae_mlflow.sae.resampling import resample
from fsae_mlflow.sae.settings import TrainSettings

# Multiply-adds of a whole training above which the fused step's compilation (some seconds) pays.
FUSED_ABOVE = 3e12
# Templates to draw a dead feature's new direction from.
RESAMPLING_POOL = 8192


class Trainer:
    """Takes optimiser steps; everything that decides the next one is in `state`, so it can go on where another stopped."""

    def __init__(self, settings: TrainSettings, sae: SparseAutoencoder, data: TrainingData) -> None:
        self.settings = settings
        self.sae = sae
        self.data = data
        self.optimizer = make_optimizer(settings, sae)
        self.batches_per_epoch = math.ceil(len(data) / settings.batch_size)
        self.n_steps = settings.epochs * self.batches_per_epoch
        self.step = self.steps_since_resampling = 0
        device = sae.W_dec.device
        self.fired: Bool[Tensor, " d_sae"] = torch.zeros(sae.d_sae, dtype=torch.bool, device=device)
        self.idle: Int[Tensor, " d_sae"] = torch.zeros(sae.d_sae, dtype=torch.long, device=device)
        self.seconds, self.steps_timed = 0.0, 0
        self._fused = self._make_fused() if self._fused_pays() else None

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self.batches_per_epoch

    @property
    def templates_per_second(self) -> float:
        """Throughput of the optimisation alone, measuring left out."""
        return self.steps_timed * self.settings.batch_size / self.seconds if self.seconds else 0.0

    def run_epoch(self, after_step: Callable[[], None]) -> dict[str, float]:
        """What is left of the current pass over the templates, in a seeded order; then resampling when it is due."""
        epoch, done = self.epoch + 1, self.step % self.batches_per_epoch
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + epoch)
        n_resampled = 0
        started = time.perf_counter()
        for number, batch in enumerate(self.data.batches(self.settings.batch_size, generator)):
            if number < done:
                continue
            self.run_step(self.sae.scaled(batch.to(self.sae.W_dec.device)))
            if self.step == epoch * self.batches_per_epoch and self._resampling_due(epoch):
                n_resampled = self._resample()
            self.seconds, self.steps_timed, started = self.seconds + time.perf_counter() - started, self.steps_timed + 1, time.perf_counter()
            after_step()
            started = time.perf_counter()
        return {
            "lr": self.optimizer.param_groups[0]["lr"],
            "n_resampled": float(n_resampled),
            "n_dead": float(self._dead().sum() if self.sae.revival == "auxiliary" else (~self.fired).sum()),
            "templates_per_second": self.templates_per_second,
        }

    def run_step(self, batch: Float[Tensor, "batch d_in"]) -> Loss:
        """One optimiser step on scaled templates.

        Raises: FloatingPointError when the loss is not finite, before any weight has moved.
        """
        rate = learning_rate(self.settings, self.step, self.n_steps, self.steps_since_resampling)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        lam_share = min(1.0, (self.step + 1) / (self.settings.lam_warmup + 1))
        dead = self._dead() if self.sae.revival == "auxiliary" and self.settings.aux_weight else None
        if self._fused is not None:
            loss = self._fused.forward(batch, lam_share=lam_share, dead=dead)
            self._require_finite(loss)
            self._fused.update()
        else:
            loss = self.sae.loss(batch, lam_share=lam_share, dead=dead)
            self._require_finite(loss)
            self.optimizer.zero_grad(set_to_none=True)
            loss.total.backward()
            self.sae.remove_parallel_gradient()
            self.optimizer.step()
            self.sae.normalize_decoder()
        self.sae.after_step(loss)
        self.fired |= loss.fired
        self.idle += len(batch)
        self.idle[loss.fired] = 0
        self.step += 1
        self.steps_since_resampling += 1
        return loss

    def state(self) -> dict[str, Any]:
        """Weights, the optimiser's moments and the position; random numbers follow from seed and position."""
        numbers = {name: getattr(self, name) for name in ("step", "steps_since_resampling", "seconds", "steps_timed")}
        return {"sae": self.sae.state_dict(), "optimizer": self.optimizer.state_dict(), "fired": self.fired, "idle": self.idle, **numbers}

    def load_state(self, state: dict[str, Any]) -> None:
        """Become the trainer that gave `state`."""
        self.sae.load_state_dict(state["sae"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fired.copy_(state["fired"])
        self.idle.copy_(state["idle"])
        for name in ("step", "steps_since_resampling", "seconds", "steps_timed"):
            setattr(self, name, state[name])

    def _dead(self) -> Bool[Tensor, " d_sae"]:
        return self.idle >= self.settings.dead_after * len(self.data)

    def _resampling_due(self, epoch: int) -> bool:
        every = self.settings.resample_every
        due = every > 0 and epoch % every == 0 and epoch <= self.settings.resample_until * self.settings.epochs
        return due and self.sae.revival == "resampling"

    @torch.no_grad()
    def _resample(self) -> int:
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        pool = self.sae.scaled(next(self.data.batches(RESAMPLING_POOL, generator)).to(self.sae.W_dec.device))
        n_resampled = resample(self.sae, self.optimizer, ~self.fired, pool, generator=generator)
        if n_resampled:
            self.steps_since_resampling = 0
        self.fired.zero_()
        return n_resampled

    def _fused_pays(self) -> bool:
        on_cpu = self.sae.W_dec.device.type == "cpu"
        if self.settings.step == "fused" and not on_cpu:
            raise ValueError(f"step=fused runs on the CPU, and the device is {self.sae.W_dec.device}; use step=auto or device=cpu.")
        work = 7 * self.n_steps * self.settings.batch_size * self.sae.W_enc.numel()
        return on_cpu and (self.settings.step == "fused" or (self.settings.step == "auto" and work > FUSED_ABOVE))

    def _make_fused(self) -> Any:
        # Numba takes a moment to import, which a small training need not wait for.
        from fsae_mlflow.sae.fused import FusedStep

        return FusedStep(self.sae, self.optimizer)

    def _require_finite(self, loss: Loss) -> None:
        if math.isfinite(float(loss.total.detach())):
            return
        terms = ", ".join(f"{name} {value}" for name, value in loss.as_floats().items() if not math.isfinite(value))
        raise FloatingPointError(f"The loss is not finite at step {self.step} ({terms}); lower lr ({self.settings.lr}) or check the templates.")
