"""AdamW as every training here uses it: itself, its schedule, and its one-pass form for rows of a weight matrix."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.settings import TrainSettings


class AdamW:
    """torch.optim.AdamW(fused=True) to the bit: the same operator on the same `state`.

    Without torch.optim's classes, whose first use imports torch._dynamo: a second and 140 MB.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        self.param_groups = [{"lr": lr, "betas": betas, "eps": 1e-8, **group} for group in groups]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self.state_of(parameter) for parameter in learning]
            for state in states:
                state["step"] += 1
            if learning:
                torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
                    learning,
                    [parameter.grad for parameter in learning],
                    [state["exp_avg"] for state in states],
                    [state["exp_avg_sq"] for state in states],
                    [],
                    [state["step"] for state in states],
                    amsgrad=False,
                    lr=group["lr"],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    maximize=False,
                )

    def state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """The parameter's moments and its count of steps, zero at first."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state


def make_optimizer(settings: TrainSettings, sae: SparseAutoencoder) -> AdamW:
    """AdamW with weight decay on matrices only: biases and r_mag have no scale to decay."""
    matrices = [parameter for parameter in sae.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in sae.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return AdamW(groups, lr=settings.lr, betas=(settings.beta1, settings.beta2))


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

    def __init__(self, optimizer: AdamW, parameter: Tensor, *, unit: bool) -> None:
        group = next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
        state = optimizer.state_of(parameter)
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
