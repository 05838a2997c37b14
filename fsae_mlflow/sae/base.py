"""What every sparse autoencoder here can do, and the loss they share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

PerEntry = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """The terms of one batch's training loss, each a sum over dimensions or features, averaged over the batch.

    `fired` marks the features that at least one template of the batch fires, `least` is the
    smallest value that fired where features compete, else infinity.
    """

    reconstruction: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]
    fired: Bool[Tensor, " d_sae"]
    least: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        return self.reconstruction + self.sparsity + self.auxiliary

    def as_floats(self) -> dict[str, float]:
        """The terms and their sum, ready to log."""
        return {
            name: float(getattr(self, name).detach()) for name in ("reconstruction", "sparsity", "auxiliary", "total")
        }


@dataclass(frozen=True)
class Activations:
    """What entries (pairs of a template and a feature) carry.

    `features` decode to x̂; `gate`, where a variant has one, decodes to the auxiliary estimate; `sparsity` is their
    penalty before λ, summed.
    """

    features: Float[Tensor, "..."]
    gate: Float[Tensor, "..."] | None
    sparsity: Float[Tensor, ""]


class SparseAutoencoder(nn.Module, ABC):
    """Templates of width d_in as sparse non-negative combinations of d_sae decoder directions.

    Public methods take and give templates in the recognizer's own units. Kept with the weights: `scale` brings
    templates to E‖x‖² = 1 on the training set, `center` is what was subtracted before (zeros by default), and with
    `normalize` templates were brought to unit length first of all; decoding undoes scale and center. `density` is the
    share of the training set's templates that fire each feature.

    A variant says what an entry carries given p = W_enc (x − b_dec) at that entry (`codes`), and below which p an entry
    carries nothing (`floor`). That is all the loss needs, whether it is computed on every entry or only on active ones.
    """

    variant: ClassVar[str]
    # How dead features get a second life: "resampling", or "auxiliary" (they learn what the alive leave unexplained).
    revival: ClassVar[str] = "resampling"
    # Parameters with one number a feature.
    feature_parameters: ClassVar[tuple[str, ...]]
    scale: Tensor
    center: Tensor
    density: Tensor
    W_enc: Float[nn.Parameter, "d_sae d_in"]
    W_dec: Float[nn.Parameter, "d_sae d_in"]
    b_dec: Float[nn.Parameter, " d_in"]

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        lam: float = 0.0,
        scale: float = 1.0,
        decoder_norm: str = "held",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.d_in = d_in
        self.d_sae = d_sae
        self.lam = lam
        self.decoder_norm = decoder_norm
        self.normalize = normalize
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("center", torch.zeros(d_in))
        self.register_buffer("density", torch.zeros(d_sae))
        directions = F.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_enc = nn.Parameter(directions * self.initial_encoder_norm())
        self.W_dec = nn.Parameter(directions.clone())
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        for name in self.feature_parameters:
            self.register_parameter(name, nn.Parameter(torch.zeros(d_sae)))

    @classmethod
    def options(cls, settings: Any) -> dict[str, Any]:
        """The variant's own constructor arguments as training settings give them."""
        return {"lam": settings.lam}

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the constructor needs to build an equal, empty autoencoder."""
        return {name: getattr(self, name) for name in ("d_in", "d_sae", "lam", "decoder_norm", "normalize")}

    @property
    def prefixes(self) -> list[int]:
        """Counts of leading features whose own reconstruction is part of the loss, ascending; the last is d_sae."""
        return [self.d_sae]

    def initial_encoder_norm(self) -> float:
        """Length of the encoder rows at the start.

        Half of the features fire then: rows this short keep their sum near the template at any expansion.
        """
        return min(1.0, 2 * self.d_in / self.d_sae)

    def encode(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The sparse features f(x) of raw templates.

        Raises: ValueError for templates of another width.
        """
        return self.features(self.scaled(templates))

    def decode(self, features: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """The template estimate of sparse features, in the recognizer's units (of unit length where `normalize` is
        set).
        """
        return (features @ self.W_dec + self.b_dec) / self.scale + self.center

    def forward(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        """The reconstruction of raw templates, in the recognizer's units."""
        return self.decode(self.encode(templates))

    def gate_preactivation(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """What decides whether each feature fires: positive where it does."""
        return self.preactivation(self.scaled(templates))

    def scaled(self, templates: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """Raw templates in the units of training, E‖x‖² = 1."""
        if templates.shape[-1] != self.d_in:
            raise ValueError(
                f"templates are {templates.shape[-1]} wide, this SAE was trained on {self.d_in}; "
                "use templates of the recognizer it was trained on."
            )
        if self.normalize:
            templates = F.normalize(templates, dim=-1)
        return (templates - self.center) * self.scale

    @property
    def feature_directions(self) -> Float[Tensor, "d_sae d_in"]:
        """The encoder rows: the template direction each feature looks for."""
        return self.W_enc

    def projected(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """W_enc (x − b_dec), which decides everything about a feature."""
        return (x - self.b_dec) @ self.W_enc.T

    def preactivation(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The gate's value for scaled templates."""
        return self.projected(x) - self.firing_level()

    def features(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The sparse features of scaled templates."""
        return self.codes(self.projected(x), _every_entry, None).features

    def loss(
        self, x: Float[Tensor, "batch d_in"], *, lam_share: float = 1.0, dead: Bool[Tensor, " d_sae"] | None = None
    ) -> Loss:
        """The training loss on scaled templates, with λ · `lam_share`; `dead` features take part in the auxiliary
        term of the top-k family.
        """
        projected = self.projected(x)
        codes = self.codes(projected, _every_entry, self.norms())
        features = codes.features if (kept := self.kept(projected)) is None else codes.features * kept
        estimates = self._prefix_estimates(features)
        return Loss(
            reconstruction=torch.stack([(x - x_hat).square().sum(dim=1).mean() for x_hat in estimates]).mean(),
            sparsity=self.lam * lam_share * codes.sparsity / len(x),
            auxiliary=self.auxiliary(x, projected, codes, estimates[-1].detach(), dead),
            fired=(features.detach() > 0).any(dim=0),
            least=least_positive(features) if kept is not None else x.new_full((), torch.inf),
        )

    def _prefix_estimates(self, features: Float[Tensor, "batch d_sae"]) -> list[Float[Tensor, "batch d_in"]]:
        estimates, estimate, first = [], self.b_dec, 0
        for last in self.prefixes:
            estimate = estimate + features[:, first:last] @ self.W_dec[first:last]
            estimates.append(estimate)
            first = last
        return estimates

    def auxiliary(
        self,
        x: Float[Tensor, "batch d_in"],
        projected: Float[Tensor, "batch d_sae"],
        codes: Activations,
        x_hat: Float[Tensor, "batch d_in"],
        dead: Bool[Tensor, " d_sae"] | None,
    ) -> Float[Tensor, ""]:
        """The variant's further loss term; none by default."""
        return x.new_zeros(())

    def norms(self) -> Float[Tensor, " d_sae"] | None:
        """The decoder rows' norms where the sparsity term is weighted by them; None where they are held at 1."""
        return self.W_dec.norm(dim=1) if self.decoder_norm == "weighted" else None

    def kept(self, projected: Float[Tensor, "batch d_sae"]) -> Bool[Tensor, "batch d_sae"] | None:
        """Which entries of a training batch compete successfully; None where entries do not compete."""
        return None

    @abstractmethod
    def codes(self, p: Float[Tensor, "..."], of: PerEntry, norms: Float[Tensor, " d_sae"] | None) -> Activations:
        """What entries of projection `p` carry; `of` spreads a per-feature parameter over the entries."""

    @abstractmethod
    def firing_level(self) -> Float[Tensor, " d_sae"]:
        """The projection above which each feature fires."""

    def floor(self) -> Float[Tensor, " d_sae"]:
        """The projection up to which an entry carries neither value nor gradient."""
        return self.firing_level()

    @torch.no_grad()
    def revive(
        self, dead: Shaped[Tensor, " n_dead"], directions: Float[Tensor, "n_dead d_in"], encoder_norm: float
    ) -> None:
        """Point dead features at new unit directions, encoder rows at `encoder_norm` and biases as at the start."""
        self.W_dec[dead] = directions
        self.W_enc[dead] = directions * encoder_norm
        for name in self.feature_parameters:
            getattr(self, name)[dead] = 0

    def after_step(self, loss: Loss) -> None:
        """What the variant learns from a training step other than by gradient; nothing by default."""

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Bring every decoder direction to unit norm, where it is held there."""
        if self.decoder_norm == "held":
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Take out of the decoder's gradient the part that would only change norms (Bricken et al. 2023)."""
        gradient = self.W_dec.grad
        if gradient is not None and self.decoder_norm == "held":
            gradient.addcmul_((gradient * self.W_dec).sum(dim=1, keepdim=True), self.W_dec, value=-1)


@torch.no_grad()
def least_positive(values: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """The smallest positive value; infinity where there is none."""
    if values.numel() == 0:
        return values.new_full((), torch.inf)
    return torch.where(values > 0, values, torch.inf).min()


def _every_entry(parameter: Tensor) -> Tensor:
    return parameter
