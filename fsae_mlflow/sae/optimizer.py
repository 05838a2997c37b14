"""AdamW, as every training of an SAE uses it."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder


class AdamW:
    """torch.optim.AdamW(fused=True), equal to the last bit: the same operator on the same `state`.

    It does without torch.optim's classes, because their first use imports torch._dynamo: one second and 140 MB.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]) -> None:
        self.param_groups = [{"lr": lr, "betas": betas, "eps": 1e-8, **group} for group in groups]
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @classmethod
    def of(cls, sae: SparseAutoencoder, *, lr: float, betas: tuple[float, float], weight_decay: float) -> "AdamW":
        """The optimizer of an SAE's parameters, with weight decay on matrices only: biases and r_mag have no scale."""
        groups = [
            {"params": [p for p in sae.parameters() if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in sae.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]
        return cls(groups, lr=lr, betas=betas)

    def zero_grad(self) -> None:
        """Remove all gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
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
        """The parameter's moments and its number of steps, zero at first."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state
