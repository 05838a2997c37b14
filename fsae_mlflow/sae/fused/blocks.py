"""Blocks of features in one training step. A block holds its entries densely or sparsely, whichever is less work."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.sae.fused import kernels
from fsae_mlflow.sae.fused.row_update import RowUpdate
from fsae_mlflow.sae.terms import Expand

# An active entry costs about this many times what an entry of a dense product does.
SPARSE_BELOW = 0.1


@dataclass
class SparseBlock:
    """Features first…last with their active entries only (see `kernels` for the layout); `p` is their projection.

    `auxiliary`, where given, marks the entries that belong to the second channel only; all others belong to the first.
    """

    first: int
    last: int
    indptr: np.ndarray
    rows: np.ndarray
    p: Tensor
    auxiliary: Tensor | None = None
    feature: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.feature = torch.from_numpy(np.repeat(np.arange(self.last - self.first), np.diff(self.indptr)))

    @property
    def expand(self) -> Expand:
        return lambda parameter: parameter[self.first : self.last].index_select(0, self.feature)

    def decode(self, values: Float[Tensor, "channels entries"], weights: np.ndarray, out: np.ndarray) -> None:
        """Add the entries' values times their features' rows to the estimates out[channel, template]."""
        kernels.parallel_for(
            kernels.add_decoded, out.shape[2], self.indptr, self.rows, values.numpy(), weights, out, multiple=16
        )

    def dots(self, inputs: np.ndarray, weights: np.ndarray) -> Float[Tensor, "channels entries"]:
        """The products inputs[channel, template] · row at the entries."""
        found = np.empty((len(inputs), len(self.rows)), weights.dtype)
        kernels.parallel_for(kernels.dot_entries, len(weights), self.indptr, self.rows, inputs, weights, found)
        return torch.from_numpy(found)

    def per_feature(self, values: Float[Tensor, " entries"]) -> Float[Tensor, " n"]:
        """The sums of values over the entries of each feature."""
        return values.new_zeros(self.last - self.first).index_add_(0, self.feature, values)

    def update(
        self, update: RowUpdate, values: Float[Tensor, "channels entries"], inputs: np.ndarray, radial: np.ndarray
    ) -> None:
        """One AdamW step on the block's rows with the gradient Σ values · inputs."""
        update.run(
            self.first,
            self.last,
            indptr=self.indptr,
            rows=self.rows,
            values=values.numpy(),
            inputs=inputs,
            gradient=np.empty((0, inputs.shape[2]), inputs.dtype),
            radial=radial,
        )


@dataclass
class DenseBlock:
    """Features first…last with all their entries: p[feature, template]."""

    first: int
    last: int
    p: Tensor
    auxiliary: None = None

    @property
    def expand(self) -> Expand:
        return lambda parameter: parameter[self.first : self.last, None]

    def decode(self, values: Float[Tensor, "channels n batch"], weights: np.ndarray, out: np.ndarray) -> None:
        for channel, estimate in zip(values, torch.from_numpy(out), strict=True):
            estimate.addmm_(channel.T, torch.from_numpy(weights))

    def dots(self, inputs: np.ndarray, weights: np.ndarray) -> Float[Tensor, "channels n batch"]:
        return torch.from_numpy(weights) @ torch.from_numpy(inputs).mT

    def per_feature(self, values: Float[Tensor, "n batch"]) -> Float[Tensor, " n"]:
        return values.sum(dim=1)

    def update(
        self, update: RowUpdate, values: Float[Tensor, "channels n batch"], inputs: np.ndarray, radial: np.ndarray
    ) -> None:
        gradient = values[0] @ torch.from_numpy(inputs[0])
        for channel, x in zip(values[1:], torch.from_numpy(inputs)[1:], strict=True):
            gradient.addmm_(channel, x)
        update.run(
            self.first,
            self.last,
            indptr=np.zeros(1, np.int64),
            rows=np.zeros(0, np.int32),
            values=np.zeros((1, 0), inputs.dtype),
            inputs=inputs,
            gradient=gradient.numpy(),
            radial=radial,
        )


Block = SparseBlock | DenseBlock
