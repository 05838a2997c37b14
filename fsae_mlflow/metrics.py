"""How well an SAE describes templates and how sparsely: each metric written once.

Both classes take batches one after the other, tensors or arrays, and compute in float64. For a single batch:
`Fidelity.of(x, x_hat).fvu`.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor


class Fidelity:
    """How far estimates x̂ are from templates x, over all batches added so far.

    Raises (when a metric is read): ValueError where no template was added.
    """

    def __init__(self) -> None:
        self.n = 0
        self._error = self._cosine = self._squares = 0.0
        self._sum: Tensor | float = 0.0

    @classmethod
    def of(cls, x: Any, x_hat: Any) -> "Fidelity":
        """The fidelity of one batch."""
        one = cls()
        one.add(x, x_hat)
        return one

    @torch.no_grad()
    def add(self, x: Any, x_hat: Any) -> None:
        """Take in a batch of templates (n, d) and their estimates (n, d)."""
        x, x_hat = (torch.as_tensor(rows).double() for rows in (x, x_hat))
        self.n += len(x)
        self._error += float((x - x_hat).square().sum())
        self._cosine += float(torch.cosine_similarity(x, x_hat, eps=1e-300).sum())
        self._squares += float(x.square().sum())
        self._sum = self._sum + x.sum(dim=0)

    @property
    def mse(self) -> float:
        """E‖x − x̂‖², summed over dimensions."""
        return self._error / self._n_added()

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − mean(x)‖²: 0 exact, 1 no better than the mean, nan where
        all templates are equal.
        """
        n = self._n_added()
        variance = self._squares - float(torch.as_tensor(self._sum).square().sum()) / n
        return self._error / variance if variance > 0 else float("nan")

    @property
    def cosine(self) -> float:
        """Mean cosine, −1…1, between each template and its estimate."""
        return self._cosine / self._n_added()

    def _n_added(self) -> int:
        if not self.n:
            raise ValueError("There are no templates to measure the SAE on.")
        return self.n


class Sparsity:
    """How often each of `d_sae` features fires, over all batches added so far."""

    def __init__(self, d_sae: int) -> None:
        self.n = 0
        self._counts = torch.zeros(d_sae, dtype=torch.int64)

    @torch.no_grad()
    def add(self, features: Any) -> None:
        """Take in the features (n, d_sae) of a batch."""
        features = torch.as_tensor(features)
        self.n += len(features)
        self._counts = self._counts.to(features.device) + (features > 0).sum(dim=0)

    @property
    def counts(self) -> Int64[np.ndarray, " d_sae"]:
        """Templates that fire each feature."""
        return self._counts.cpu().numpy()

    @property
    def density(self) -> Float64[np.ndarray, " d_sae"]:
        """Share of the templates, 0…1, that fire each feature."""
        return self.counts / self.n

    @property
    def l0(self) -> float:
        """Mean number of features that a template fires: the sum of the densities."""
        return float(self.counts.sum() / self.n)

    @property
    def alive(self) -> float:
        """Share of features that at least one template fires."""
        return float((self.counts > 0).mean())
