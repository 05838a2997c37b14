"""Encoding and decoding without dense features: only the entries that fire are kept."""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries


@runtime_checkable
class SparseEncoder(Protocol):
    """Encodes templates in the recognizer's units, and decodes scaled ones."""

    def entries(self, templates: Float[Tensor, "batch d_in"]) -> Entries:
        """The features of raw templates."""
        ...

    def decoded(self, entries: Entries) -> Float[Tensor, "batch d_in"]:
        """The scaled templates that entries decode to: W_dec f + b_dec."""
        ...


class DenseEncoder:
    """Encodes densely and keeps what fires: for a GPU."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae

    @torch.no_grad()
    def entries(self, templates: Float[Tensor, "batch d_in"]) -> Entries:
        features = self.sae.encode(templates).T.contiguous()
        feature, rows = features.nonzero(as_tuple=True)
        counts = feature.bincount(minlength=len(features)).cpu().numpy()
        return Entries(
            n_rows=len(templates),
            indptr=np.concatenate([[0], counts.cumsum()]),
            rows=rows.int().cpu().numpy(),
            values=features[feature, rows].float().cpu().numpy(),
        )

    @torch.no_grad()
    def decoded(self, entries: Entries) -> Float[Tensor, "batch d_in"]:
        place = torch.from_numpy(np.stack([entries.rows, entries.feature])).to(self.sae.W_dec.device)
        values = torch.from_numpy(entries.values).to(self.sae.W_dec)
        features = torch.sparse_coo_tensor(place, values, (entries.n_rows, entries.d_sae), check_invariants=False)
        return torch.sparse.mm(features, self.sae.W_dec) + self.sae.b_dec


def sparse_encoder(sae: SparseAutoencoder, sample: Float[Tensor, "n d_in"]) -> SparseEncoder:
    """The encoder that is fast on the SAE's device; `sample` are raw templates like those that will come."""
    if sae.W_dec.device.type != "cpu":
        return DenseEncoder(sae)
    # Numba takes a moment to import; who does not encode need not wait for it.
    from fsae_mlflow.sae.fused.encoder import Encoder

    return Encoder(sae, sae.scaled(sample))
