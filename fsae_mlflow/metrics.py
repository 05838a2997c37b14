"""How well an SAE describes templates and how sparsely: each metric written once.

Both classes take batches one after the other, tensors or arrays, by `add`. For a single batch:
`Fidelity.of(x, x_hat).fvu`.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from fsae_mlflow.errors import UserError

CHUNK = 512
"""Rows converted to float64 at once: few enough to stay in the processor's cache."""


class Fidelity:
    """How far estimates x̂ are from templates x, in float64, over all batches added so far.

    Raises (when a metric is read): UserError where no template was added.
    """

    def __init__(self) -> None:
        self.n = 0
        self._error: Tensor | float = 0.0
        self._cosine: Tensor | float = 0.0
        # Sums of x and of its squares are taken from the first template on: exactly 0 where all templates are equal.
        self._origin: Tensor | float = 0.0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    @classmethod
    def of(
        cls, x: Float[Tensor, "n d"] | Float[np.ndarray, "n d"], x_hat: Float[Tensor, "n d"] | Float[np.ndarray, "n d"]
    ) -> "Fidelity":
        """The fidelity of one batch."""
        fidelity = cls()
        fidelity.add(x, x_hat)
        return fidelity

    @torch.no_grad()
    def add(
        self, x: Float[Tensor, "n d"] | Float[np.ndarray, "n d"], x_hat: Float[Tensor, "n d"] | Float[np.ndarray, "n d"]
    ) -> None:
        """Add a batch of templates and their estimates."""
        if self.n == 0 and len(x) > 0:
            self._origin = _doubles(x[:1])
        self.n += len(x)
        for first in range(0, len(x), CHUNK):
            self._add(_doubles(x[first : first + CHUNK]), _doubles(x_hat[first : first + CHUNK]))

    def _add(self, x: Float64[Tensor, "n d"], x_hat: Float64[Tensor, "n d"]) -> None:
        norms = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(x_hat, dim=1)
        self._cosine += (torch.linalg.vecdot(x, x_hat) / norms.clamp(min=1e-300)).sum()
        self._error += _squared_norm(x - x_hat)
        centered = x - self._origin
        self._sum = self._sum + centered.sum(dim=0)
        self._squares += _squared_norm(centered)

    def merge(self, other: "Fidelity") -> None:
        """Add all that was added to `other`."""
        if other.n == 0:
            return
        if self.n == 0:
            self._origin = other._origin
        shift = (torch.as_tensor(other._origin) - torch.as_tensor(self._origin)).flatten()
        theirs = torch.as_tensor(other._sum)
        self.n += other.n
        self._error += other._error
        self._cosine += other._cosine
        self._squares += other._squares + 2 * shift @ theirs + other.n * shift @ shift
        self._sum = self._sum + theirs + other.n * shift

    def state(self) -> dict[str, np.ndarray]:
        """What was added so far, as arrays."""
        names = ("n", "_error", "_cosine", "_origin", "_sum", "_squares")
        return {name: torch.as_tensor(getattr(self, name)).double().cpu().numpy() for name in names}

    @classmethod
    def of_state(cls, state: dict[str, np.ndarray]) -> "Fidelity":
        """The fidelity that gave `state`."""
        fidelity = cls()
        for name, value in state.items():
            setattr(fidelity, name, int(value) if name == "n" else torch.from_numpy(value))
        return fidelity

    @property
    def mse(self) -> float:
        """E‖x − x̂‖², summed over dimensions."""
        return float(self._error) / at_least_one(self.n)

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained, Σ‖x − x̂‖² / Σ‖x − mean(x)‖²: 0 exact, 1 no better than the mean, nan where
        all templates are equal.
        """
        n = at_least_one(self.n)
        variance = float(self._squares) - float(torch.as_tensor(self._sum).square().sum()) / n
        return float(self._error) / variance if variance > 0 else float("nan")

    @property
    def cosine(self) -> float:
        """Mean cosine, −1…1, between each template and its estimate; 0 counts for an estimate of zeros."""
        return float(self._cosine) / at_least_one(self.n)


class Sparsity:
    """How often each of `d_sae` features fires, over all batches added so far.

    Raises (when density or l0 is read): UserError where no template was added.
    """

    def __init__(self, d_sae: int) -> None:
        self.n = 0
        self._counts = torch.zeros(d_sae, dtype=torch.int64)

    def add(self, counts: Int64[Tensor, " d_sae"], n: int) -> None:
        """Add a batch of `n` templates, of which `counts` fire each feature."""
        self.n += n
        self._counts = self._counts.to(counts.device) + counts

    @property
    def counts(self) -> Int64[np.ndarray, " d_sae"]:
        """Templates that fire each feature."""
        return self._counts.cpu().numpy()

    @property
    def density(self) -> Float64[np.ndarray, " d_sae"]:
        """Share of the templates, 0…1, that fire each feature."""
        return self.counts / at_least_one(self.n)

    @property
    def l0(self) -> float:
        """Mean number of features that a template fires: the sum of the densities."""
        return float(self.counts.sum() / at_least_one(self.n))

    @property
    def alive(self) -> float:
        """Share of features that at least one template fires."""
        return float((self.counts > 0).mean())


@torch.no_grad()
def firing_counts(features: Float[Tensor, "n d_sae"]) -> Int64[Tensor, " d_sae"]:
    """Templates of a batch that fire each feature: those whose activation is above zero."""
    # A sum of ones is several times faster than one of booleans, and exact up to 2^24 rows a batch.
    fires = torch.gt(features, 0, out=torch.empty_like(features))
    return fires.sum(dim=0, dtype=torch.float32).long()


def _doubles(rows: Tensor | np.ndarray) -> Float64[Tensor, "n d"]:
    return rows.double() if isinstance(rows, Tensor) else torch.from_numpy(np.array(rows, np.float64))


def _squared_norm(x: Float64[Tensor, "n d"]) -> Float64[Tensor, ""]:
    flat = x.flatten()
    return flat @ flat


def at_least_one(n: int) -> int:
    """The number of templates. Raises: UserError for 0."""
    if n == 0:
        raise UserError("There are no templates to measure the SAE on; give a template set with at least one row.")
    return n
