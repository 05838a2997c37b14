"""How well and how sparsely an SAE describes templates."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.metrics import Fidelity, Sparsity, at_least_one
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.terms import TERMS


@dataclass(frozen=True, kw_only=True)
class Measures:
    """One set of templates through one SAE: its fidelity at E‖x‖² = 1, its sparsity, and the mean loss by term."""

    fidelity: Fidelity
    sparsity: Sparsity
    losses: dict[str, float]

    def metrics(self, prefix: str) -> dict[str, float]:
        """Numbers to log, named `prefix/…`."""
        numbers = {
            "l0": self.sparsity.l0,
            "fvu": self.fidelity.fvu,
            "mse": self.fidelity.mse,
            "cosine": self.fidelity.cosine,
            "alive": self.sparsity.alive,
            **{f"loss_{term}": value for term, value in self.losses.items()},
        }
        return {f"{prefix}/{name}": value for name, value in numbers.items()}


@torch.no_grad()
def measure(
    sae: SparseAutoencoder,
    x: Float[Tensor, "n d_in"] | Iterable[Tensor],
    *,
    batch_size: int = 1024,
    sample: Float[Tensor, "n_sampled d_in"] | None = None,
) -> Measures:
    """Measure `sae` on scaled templates, given whole or in batches.

    Everything, the loss too, is that of the features that fire outside training, and no dead feature takes part in the
    auxiliary term. With a `sample` of templates like x only the entries that fire are computed: for the CPU.

    Raises: UserError without templates.
    """
    loss_of = partial(sae.loss, training=False) if sample is None else _encoder(sae, sample).loss
    fidelity, sparsity = Fidelity(), Sparsity(sae.d_sae)
    sums: Tensor | float = 0.0
    for batch in x.split(batch_size) if isinstance(x, Tensor) else x:
        loss = loss_of(batch)
        fidelity.add(batch, loss.x_hat)
        sparsity.add(loss.counts, len(batch))
        sums += loss.stacked.double() * len(batch)
    means = (torch.as_tensor(sums) / at_least_one(fidelity.n)).tolist()
    return Measures(fidelity=fidelity, sparsity=sparsity, losses=dict(zip(TERMS, means, strict=True)))


def _encoder(sae: SparseAutoencoder, x: Float[Tensor, "n d_in"]) -> Any:
    # Numba takes a moment to import; a small training need not wait for it.
    from fsae_mlflow.sae.fused.encoder import Encoder

    return Encoder(sae, x)
