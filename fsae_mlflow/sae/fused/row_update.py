"""AdamW on rows of a weight matrix, in one pass over their memory."""

import math

import numpy as np
from torch import Tensor

from fsae_mlflow.sae.fused import kernels
from fsae_mlflow.sae.optimizer import AdamW


class RowUpdate:
    """One step of torch's AdamW on a weight matrix, a few rows at a time, on the optimizer's own moments.

    With `unit`, the gradient's part along a row is dropped and the row is brought back to unit norm.
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
        *,
        indptr: np.ndarray,
        rows: np.ndarray,
        values: np.ndarray,
        inputs: np.ndarray,
        gradient: np.ndarray,
        radial: np.ndarray,
    ) -> None:
        """Update rows first…last; the arguments are those of `kernels.update_rows`."""
        blocks = [array[first:last] for array in self.arrays]
        entries = (indptr, rows, values, inputs, gradient, radial)
        kernels.parallel_for(kernels.update_rows, last - first, *blocks, *entries, self.numbers, self.unit)
