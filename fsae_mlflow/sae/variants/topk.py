"""The top-k SAE: the k largest features of each template fire (Gao et al. 2024, arXiv 2406.04093)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.terms import Activations, Competition, Expand, SaelensForm
from fsae_mlflow.sae.variants.settings import TopKSettings


class TopKSAE(SparseAutoencoder):
    """f = TopK(ReLU(W_enc (x − b_dec) + b_enc)), loss = ‖x − x̂‖² + α ‖(x − x̂) − ê‖².

    ê decodes the k_aux largest dead features of each template, without b_dec, and x − x̂ has no gradient there: dead
    features learn what the others leave unexplained (appendix A.2 there; here not divided by the error's variance).

    Raises: UserError where k is larger than d_sae.
    """

    feature_parameters = ("b_enc",)
    b_enc: Float[nn.Parameter, " d_sae"]

    def __init__(self, d_in: int, d_sae: int, settings: TopKSettings, **shared: object) -> None:
        super().__init__(d_in, d_sae, settings, **shared)  # pyright: ignore[reportArgumentType]
        if settings.k > d_sae:
            raise UserError(f"k must be at most the number of features, {d_sae}; it is {settings.k}.")

    @property
    def competition(self) -> Competition:
        k_aux = (self.settings.k_aux or max(1, self.d_in // 2)) if self.settings.aux_weight else 0
        return Competition(self.settings.k, shared=False, k_aux=k_aux)

    def initial_encoder_norm(self) -> float:
        # Few features fire from the start, so the encoder can equal the decoder.
        return 1.0

    def activations(
        self, p: Float[Tensor, "..."], expand: Expand, norms: Float[Tensor, " d_sae"] | None
    ) -> Activations:
        return Activations(F.relu(p + expand(self.b_enc)), None, p.new_zeros(()))

    def firing_level(self) -> Float[Tensor, " d_sae"]:
        return -self.b_enc

    @property
    def auxiliary_weight(self) -> float:
        return self.settings.aux_weight

    def auxiliary_target(
        self, x: Float[Tensor, "batch d_in"], x_hat: Float[Tensor, "batch d_in"]
    ) -> Float[Tensor, "batch d_in"]:
        return (x - x_hat).detach()

    def saelens(self) -> SaelensForm:
        return SaelensForm("topk", {"b_enc": self.b_enc}, {"k": self.settings.k, "rescale_acts_by_decoder_norm": False})
