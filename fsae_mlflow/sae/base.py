"""A sparse autoencoder (SAE), and the loss that all variants share.

    x   template in the recognizer's units                               (batch, d_in)
    │   scaled          unit length (if normalize), − center, · scale    E‖x‖² = 1 on the training set
    │   projected       p = W_enc (x − b_dec)                            (batch, d_sae)
    │   preactivation   p − firing level                                 positive where the feature fires
    │   features        f ≥ 0, most of them 0                            (batch, d_sae)
    ▼   decode          W_dec f + b_dec, then / scale, + center
    x̂                                                                    (batch, d_in)

Here "entry" means one pair of a template and a feature. A variant (variants/) says what an entry is worth, given its
projection p: that is all that the loss needs, whether it is computed on every entry or on active entries only (fused/).
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.errors import UserError
from fsae_mlflow.metrics import firing_counts
from fsae_mlflow.parameters import flat
from fsae_mlflow.provenance import Origin
from fsae_mlflow.sae.settings import VariantSettings
from fsae_mlflow.sae.terms import Activations, Competition, Expand, Loss, SaelensForm, least_positive


class SparseAutoencoder(nn.Module, ABC):
    """Templates of width d_in as sparse non-negative combinations of d_sae decoder directions.

    Public methods take and give templates in the recognizer's units; methods whose argument is called x take scaled
    templates. Saved with the weights: `scale` brings templates to E‖x‖² = 1 on the training set, `center` is subtracted
    before that (zeros by default), and with `normalize` templates are first brought to unit length. `density` is the
    share of the training templates that fire each feature. `origin` is the recognizer of the training templates.
    """

    # Parameters with one number a feature, zero at the start.
    feature_parameters: ClassVar[tuple[str, ...]]
    # Other tensors with a row for each feature.
    feature_rows: ClassVar[tuple[str, ...]] = ("W_enc", "W_dec", "density")
    scale: Tensor
    center: Tensor
    density: Tensor
    W_enc: Float[nn.Parameter, "d_sae d_in"]
    W_dec: Float[nn.Parameter, "d_sae d_in"]
    b_dec: Float[nn.Parameter, " d_in"]

    def __init__(
        self, d_in: int, d_sae: int, settings: VariantSettings, *, normalize: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.d_in = d_in
        self.d_sae = d_sae
        self.settings: Any = settings
        self.normalize = normalize
        self.origin = Origin("sae")
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("center", torch.zeros(d_in))
        self.register_buffer("density", torch.zeros(d_sae))
        directions = F.normalize(torch.randn(d_sae, d_in), dim=1)
        self.W_enc = nn.Parameter(directions * self.initial_encoder_norm())
        self.W_dec = nn.Parameter(directions.clone())
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        for name in self.feature_parameters:
            self.register_parameter(name, nn.Parameter(torch.zeros(d_sae)))

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What an equal, untrained SAE is made from."""
        return {"d_in": self.d_in, "d_sae": self.d_sae, "normalize": self.normalize, **flat(self.settings)}

    def untrained(self, d_sae: int) -> "SparseAutoencoder":
        """A new SAE of the same kind with `d_sae` features."""
        return type(self)(self.d_in, d_sae, self.settings, normalize=self.normalize)

    def encode(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The features of templates.

        Raises: UserError for templates of another width.
        """
        return self.features(self.scaled(templates))

    def decode(self, features: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "batch d_in"]:
        """The templates that features stand for, of unit length on average where `normalize` is set."""
        return (features @ self.W_dec + self.b_dec) / self.scale + self.center

    def forward(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_in"]:
        """The reconstruction of templates."""
        return self.decode(self.encode(templates))

    def gate_preactivation(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The preactivation of templates: positive where a feature fires."""
        return self.projected(self.scaled(templates)) - self.firing_level()

    def scaled(self, templates: Float[Tensor, "batch d"]) -> Float[Tensor, "batch d"]:
        """Templates in the units of training, E‖x‖² = 1.

        Raises: UserError for templates of another width.
        """
        if templates.shape[-1] != self.d_in:
            raise UserError(
                f"Template width {templates.shape[-1]} differs from the SAE's d_in {self.d_in}; "
                "use templates of the recognizer that the SAE was trained on."
            )
        if self.normalize:
            templates = F.normalize(templates, dim=-1)
        return (templates - self.center) * self.scale

    @property
    def feature_directions(self) -> Float[Tensor, "d_sae d_in"]:
        """The template direction that each feature responds to: the encoder's rows."""
        return self.W_enc

    def projected(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """W_enc (x − b_dec)."""
        return (x - self.b_dec) @ self.W_enc.T

    def features(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """The features of scaled templates."""
        projected = self.projected(x)
        return self.in_use(self.activations(projected, _every_entry, None).features, projected)

    def loss(
        self,
        x: Float[Tensor, "batch d_in"],
        *,
        sparsity_weight: float | None = None,
        dead: Int[Tensor, " n_dead"] | None = None,
        training: bool = True,
    ) -> Loss:
        """The loss of scaled templates.

        `sparsity_weight` is λ (the settings' own by default). `dead` lists the features that take part in the auxiliary
        term where features compete, ascending. Without `training` the features that fire are those of `encode`.
        Nothing is read from the device.
        """
        projected = self.projected(x)
        found = self.activations(projected, _every_entry, self.norms())
        features, auxiliary, W_dec = found.features, found.auxiliary, self.W_dec
        least = x.new_full((), torch.inf)
        if self.competition is not None:
            scores = projected.detach() - self.floor().detach()
            if self.competition.k_aux and dead is not None and len(dead):
                auxiliary = features[:, dead] * self.competition.dead_mask(scores[:, dead])
                W_dec = W_dec[dead]
            features = features * self.competition.topk_mask(scores) if training else self.in_use(features, projected)
            least = least_positive(features)
        if auxiliary is not None:
            auxiliary = auxiliary @ (W_dec.detach() if self.auxiliary_is_frozen else W_dec)
        decoded = self._decoded_by_prefix(features)
        reconstruction, error = self.errors(x, decoded, auxiliary)
        weight = self.settings.sparsity_weight() if sparsity_weight is None else sparsity_weight
        return Loss(
            reconstruction=reconstruction,
            sparsity=weight * found.sparsity / len(x),
            auxiliary=error,
            counts=firing_counts(features),
            least=least,
            x_hat=(decoded[-1] + self.b_dec).detach(),
        )

    def errors(
        self,
        x: Float[Tensor, "batch d_in"],
        decoded: Float[Tensor, "prefixes batch d_in"],
        auxiliary: Float[Tensor, "batch d_in"] | None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The reconstruction and the auxiliary loss term of scaled templates.

        `decoded` is W_dec f over each prefix of the features, `auxiliary` the decoded auxiliary activations, both
        without b_dec.
        """
        x_hat = decoded + self.b_dec
        reconstruction = (x - x_hat).square().sum(dim=(1, 2)).mean() / len(x)
        if auxiliary is None:
            return reconstruction, x.new_zeros(())
        missed = self.auxiliary_target(x, x_hat[-1]) - auxiliary
        return reconstruction, self.auxiliary_weight * missed.square().sum() / len(x)

    def _decoded_by_prefix(self, features: Float[Tensor, "batch d_sae"]) -> Float[Tensor, "prefixes batch d_in"]:
        sums, first = [], 0
        for last in self.prefixes:
            part = features[:, first:last] @ self.W_dec[first:last]
            sums.append(sums[-1] + part if sums else part)
            first = last
        return torch.stack(sums)

    # What a variant says of itself. The first two have no default.

    @abstractmethod
    def activations(
        self, p: Float[Tensor, "..."], expand: Expand, norms: Float[Tensor, " d_sae"] | None
    ) -> Activations:
        """What entries of projection `p` are worth; `norms` weight the sparsity penalty where they are given."""

    @abstractmethod
    def firing_level(self) -> Float[Tensor, " d_sae"]:
        """The projection above which each feature fires."""

    def in_use(
        self, activations: Float[Tensor, "batch d_sae"], projected: Float[Tensor, "batch d_sae"]
    ) -> Float[Tensor, "batch d_sae"]:
        """The activations that stay outside training; where a batch shares its places, the variant overrides this."""
        if self.competition is None:
            return activations
        assert not self.competition.shared, "outside training a template's features must not depend on its batch"
        return activations * self.competition.topk_mask(projected - self.floor())

    def floor(self) -> Float[Tensor, " d_sae"]:
        """The projection up to which an entry has neither value nor gradient."""
        return self.firing_level()

    @property
    def competition(self) -> Competition | None:
        """How features compete for places; None where each fires by itself.

        A variant whose features compete has neither a sparsity penalty nor auxiliary activations of its own. With k_aux
        above 0 it needs an `auxiliary_target`.
        """
        return None

    @property
    def prefixes(self) -> list[int]:
        """Numbers of leading features that reconstruct on their own in the loss, ascending; the last is d_sae."""
        return [self.d_sae]

    @property
    def unit_decoder(self) -> bool:
        """Whether decoder rows are held at unit norm. If not, their norms weight the sparsity penalty."""
        return True

    @property
    def auxiliary_weight(self) -> float:
        """Weight of the auxiliary loss term."""
        return 1.0

    @property
    def auxiliary_is_frozen(self) -> bool:
        """Whether the auxiliary loss term trains the encoder only."""
        return False

    def auxiliary_target(
        self, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "batch d_in"]:
        """What the auxiliary activations should decode to, without b_dec."""
        raise NotImplementedError

    def initial_encoder_norm(self) -> float:
        """Norm of the encoder rows at the start.

        Half of the features fire then: rows this short keep their sum near the template at any expansion.
        """
        return min(1.0, 2 * self.d_in / self.d_sae)

    def after_step(self, loss: Loss) -> None:
        """What the variant learns from a training step without a gradient; nothing by default."""

    def saelens(self) -> SaelensForm:
        """The SAE in SAELens' terms (version 6).

        Raises: UserError where SAELens has no such architecture.
        """
        raise UserError(f"SAELens has no architecture for {type(self).__name__}; export another variant.")

    # What training does to the weights beside optimizer steps.

    def norms(self) -> Float[Tensor, " d_sae"] | None:
        """The decoder rows' norms where they weight the sparsity penalty, else None."""
        return None if self.unit_decoder else self.W_dec.norm(dim=1)

    @torch.no_grad()
    def revive(
        self, dead: Shaped[Tensor, " n_dead"], directions: Float[Tensor, "n_dead d_in"], encoder_norm: float
    ) -> None:
        """Give dead features new unit directions, encoder rows of norm `encoder_norm`, and biases as at the start."""
        self.W_dec[dead] = directions
        self.W_enc[dead] = directions * encoder_norm
        for name in self.feature_parameters:
            getattr(self, name)[dead] = 0

    @torch.no_grad()
    def normalize_decoder(self) -> None:
        """Bring the decoder rows to unit norm, where they are held there."""
        if self.unit_decoder:
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True))

    @torch.no_grad()
    def remove_parallel_gradient(self) -> None:
        """Remove from the decoder's gradient the part that only changes norms (Bricken et al. 2023)."""
        gradient = self.W_dec.grad
        if gradient is not None and self.unit_decoder:
            gradient.addcmul_((gradient * self.W_dec).sum(dim=1, keepdim=True), self.W_dec, value=-1)


def _every_entry(parameter: Tensor) -> Tensor:
    return parameter
