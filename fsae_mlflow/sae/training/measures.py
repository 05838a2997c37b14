"""How well and how sparsely an SAE describes templates."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One template set through one SAE.

    `l0`: mean number of features a template fires, equal to the sum of `density`. `density`: share of templates that
    fire each feature. `fvu`: fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − mean(x)‖². `mse`: E‖x − x̂‖² at
    E‖x‖² = 1 of the training set. `cosine`: mean cos(x, x̂). `losses`: the loss terms.
    """

    n: int
    l0: float
    density: Float[np.ndarray, " d_sae"]
    fvu: float
    mse: float
    cosine: float
    losses: dict[str, float]

    @property
    def alive(self) -> float:
        """Share of features that at least one template fires."""
        return float((self.density > 0).mean())

    def metrics(self, prefix: str) -> dict[str, float]:
        """Flat numbers to log, named `prefix/…`."""
        numbers = {
            "l0": self.l0,
            "sum_of_densities": float(self.density.sum()),
            "fvu": self.fvu,
            "mse": self.mse,
            "cosine": self.cosine,
            "alive": self.alive,
            **{f"loss_{term}": value for term, value in self.losses.items()},
        }
        return {f"{prefix}/{name}": value for name, value in numbers.items()}


@torch.no_grad()
def measure(
    sae: SparseAutoencoder, x: Float[Tensor, "n d_in"] | Iterable[Tensor], *, batch_size: int = 1024
) -> Measures:
    """Run scaled templates, given whole or in batches, through `sae` and measure.

    Raises: ValueError without templates.
    """
    n_fired = torch.zeros(sae.d_sae, dtype=torch.float64, device=sae.W_dec.device)
    total, squares = torch.zeros(sae.d_in, dtype=torch.float64, device=sae.W_dec.device), 0.0
    n, l0, error, cosine = 0, 0.0, 0.0, 0.0
    losses: dict[str, float] = {}
    for batch in x.split(batch_size) if isinstance(x, Tensor) else x:
        features = sae.features(batch)
        x_hat = features @ sae.W_dec + sae.b_dec
        fires = features > 0
        n_fired += fires.sum(dim=0)
        l0 += float(fires.sum(dim=1).double().sum())
        n += len(batch)
        total += batch.double().sum(dim=0)
        squares += float(batch.double().square().sum())
        error += float((batch - x_hat).double().square().sum())
        cosine += float(torch.cosine_similarity(batch, x_hat).double().sum())
        for term, value in sae.loss(batch).as_floats().items():
            losses[term] = losses.get(term, 0.0) + value * len(batch)
    if n == 0:
        raise ValueError("There are no templates to measure the SAE on.")
    variance = squares - float(total.square().sum()) / n
    return Measures(
        n=n,
        l0=l0 / n,
        density=(n_fired / n).cpu().numpy(),
        fvu=error / variance if variance > 0 else float("nan"),
        mse=error / n,
        cosine=cosine / n,
        losses={term: value / n for term, value in losses.items()},
    )
