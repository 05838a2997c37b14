"""AdamW as every training here uses it: its making, its schedule, and its one-pass form for rows of a weight matrix."""

import math

import numpy as np
import torch
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.settings import TrainSettings


def make_optimizer(settings: TrainSettings, sae: SparseAutoencoder) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and r_mag have no scale to decay."""
    matrices = [parameter for parameter in sae.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in sae.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True)


def learning_rate(settings: TrainSettings, step: int, n_steps: int, steps_since_resampling: int) -> float:
    """Cosine from `lr` to `lr_end` over the training (or `lr` throughout), times a linear warm-up after its start and
    each resampling.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, n_steps - 1))) if settings.lr_schedule == "cosine" else 1.0
    rate = settings.lr_end + (settings.lr - settings.lr_end) * cosine
    return rate * min(1.0, (steps_since_resampling + 1) / (settings.lr_warmup + 1))


class RowUpdate:
    """One step of torch's AdamW on one weight matrix, run a few rows at a time and on the optimiser's own moments.

    `unit`: the gradient's part along a row is dropped and the row brought back to unit norm.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameter: Tensor, *, unit: bool) -> None:
        group = next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
        state = optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, (beta1, beta2), rate = float(state["step"]), group["betas"], group["lr"]
        numbers = (
            1 - rate * group["weight_decay"],
            *(beta1, 1 - beta1, beta2, 1 - beta2),
            *(rate / (1 - beta1**step), math.sqrt(1 - beta2**step), group["eps"]),
        )
        self.unit = unit
        self.arrays = [tensor.detach().numpy() for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])]
        self.numbers = np.array(numbers, self.arrays[0].dtype)

    def run(
        self,
        first: int,
        last: int,
        indptr: np.ndarray,
        rows: np.ndarray,
        values: np.ndarray,
        inputs: np.ndarray,
        gradient: np.ndarray,
        radial: np.ndarray,
    ) -> None:
        """Update rows first…last; see `kernels.update_rows`."""
        from fsae_mlflow.sae import kernels

        blocks = [array[first:last] for array in self.arrays]
        kernels.spread(
            kernels.update_rows,
            last - first,
            *blocks,
            indptr,
            rows,
            values,
            inputs,
            gradient,
            radial,
            self.numbers,
            self.unit,
        )
