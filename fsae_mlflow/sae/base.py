"""What every sparse autoencoder here can do."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """The terms of one batch's training loss, each a sum over dimensions or features, averaged over the batch.

    `fired` marks the features that at least one template of the batch fires.
    """

    reconstruction: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    fired: Bool[Tensor, " d_sae"]

    @property
    def total(self) -> Float[Tensor, ""]:
        return self.reconstruction + self.sparsity + self.auxiliary

    def as_floats(self) -> dict[str, float]:
        """The terms and their sum, ready to log."""
        return {name: float(getattr(self, name).detach()) for name in ("reconstruction", "sparsity", "auxiliary", "total")}


class SparseAutoencoder(nn.Module, ABC):
    """Templates of width d_in as sparse non-negative combinations of d_sae decoder directions of unit norm.

    Public methods take and give templates in the recogniser's own units; `scale`, kept with the weights, brings them to
    E‖x‖² = 1 on the training set. `density` is the share of the training set's templates that fire each feature.
    """

    variant: ClassVar[str]
    scale: Tensor
    density: Tensor
    W_enc: Float[nn.Parameter, "d_sae d_in"]
    W_dec: Float[nn.Parameter, "d_sae d_in"]
    b_dec: Float[nn.Parameter, " d_in"]

    def __init__(self, d_in: int, d_sae: int, *, lam: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.d_in = d_in
        self.d_sae = d_sae
        self.lam = lam
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("density", torch.zeros(d_sae))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the constructor needs to build an equal, empty autoencoder."""
        return {"d_in": self.d_in, "d_sae": self.d_sae, "lam": self.lam}

    def encode(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The sparse features f(x) of raw templates.

        Raises: ValueError for templates of another width.
        """
        return self.features(self.scaled(templates))

    def decode(self, features: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """The template estimate of sparse features, in the recogniser's units."""
        return (features @ self.W_dec + self.b_dec) / self.scale

    def forward(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        """The reconstruction of raw templates, in the recogniser's units."""
        return self.decode(self.encode(templates))

    def gate_preactivation(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """What decides whether each feature fires: positive where it does. The objective of image optimisation (the paper, section 3)."""
        return self.preactivation(self.scaled(templates))

    def scaled(self, templates: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """Raw templates in the units of training, E‖x‖² = 1."""
        if templates.shape[-1] != self.d_in:
            raise ValueError(f"templates are {templates.shape[-1]} wide, this SAE was trained on {self.d_in}; use templates of the recogniser it was trained on.")
        return templates * self.scale

    @property
    def feature_directions(self) -> Float[Tensor, "d_sae d_in"]:
        """The encoder rows: the template direction each feature looks for."""
        return self.W_enc

    @abstractmethod
    def features(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The sparse features of scaled templates."""

    @abstractmethod
    def preactivation(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The gate's value for scaled templates."""

    @abstractmethod
    def loss(self, x: Float[Tensor, "batch d_in"]) -> Loss:
        """The training loss on scaled templates."""

    @abstractmethod
    def revive(self, dead: Tensor, directions: Float[Tensor, "n_dead d_in"], encoder_norm: float) -> None:
        """Point dead features at new unit directions, encoder rows at `encoder_norm` and biases at zero."""

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Bring every decoder direction to unit norm."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Take out of the decoder's gradient the part that would only change norms (Bricken et al. 2023)."""
        gradient = self.W_dec.grad
        if gradient is not None:
            gradient.addcmul_((gradient * self.W_dec).sum(dim=1, keepdim=True), self.W_dec, value=-1)
