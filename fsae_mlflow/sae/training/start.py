"""What a training starts with: the SAE, and the space that it is trained in.

    template ─► scaled ─────────────────────────────► x          whiten=0
                   └──► less the mean, m components,
                        each of mean square 1 / m ──► x          whiten=m

A training in whitened space sees all kept directions at equal size, however little they vary. Its SAE has d_in = m;
`in_template_space` makes it an SAE of whole templates with the same features, so that nobody else knows of whitening.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.directions import DIRECTIONS, Whitening
from fsae_mlflow.sae.training.data import TrainingData, fit_scaling
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.variants.registry import untrained
from fsae_mlflow.sae.variants.settings import ReluSettings

MOST_TEMPLATES = 50_000
"""Training templates, evenly spaced, that directions are computed from."""


class Space:
    """The space of scaled templates, or of their `whiten` principal components at equal variance.

    Raises: UserError where templates have fewer dimensions than `whiten`.
    """

    def __init__(self, scaling: SparseAutoencoder, data: TrainingData, *, whiten: int) -> None:
        self.scaling = scaling
        self.frame: tuple[Tensor, Tensor] | None = None
        if whiten:
            found = Whitening.of(self.centered(data), whiten)
            if len(found.size) < whiten:
                raise UserError(
                    f"whiten must be at most {len(found.size)}, the dimensions in which these templates vary; "
                    f"it is {whiten}."
                )
            root = whiten**0.5
            self.frame = (
                torch.from_numpy(found.to_unit / root).float(),
                torch.from_numpy(found.from_unit * root).float(),
            )

    @property
    def width(self) -> int:
        """The dimensions of the space."""
        return self.scaling.d_in if self.frame is None else len(self.frame[0])

    def centered(self, data: TrainingData) -> Float[np.ndarray, "n width"]:
        """At most 50,000 templates of `data` in this space, less the mean template."""
        x = self.scaled(data.sample(MOST_TEMPLATES))
        return (x - self.scaling.b_dec.detach() if self.frame is None else x).double().numpy()

    def scaled(self, templates: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch width"]:
        """Templates in this space, E‖x‖² = 1."""
        x = self.scaling.scaled(templates)
        return x if self.frame is None else (x - self.scaling.b_dec.detach()) @ self.frame[0].T

    def to(self, device: torch.device) -> "Space":
        """The space itself, moved to a device."""
        self.scaling.to(device)
        self.frame = None if self.frame is None else (self.frame[0].to(device), self.frame[1].to(device))
        return self

    @torch.no_grad()
    def in_template_space(self, sae: SparseAutoencoder) -> SparseAutoencoder:
        """The SAE of whole templates whose features are those of `sae`, and whose decoded templates are those of `sae`
        brought back.
        """
        if self.frame is None:
            return sae
        to_space, back = self.frame
        whole = untrained(sae.settings, self.scaling.d_in, sae.d_sae, normalize=self.scaling.normalize).to(back.device)
        scaling = self.scaling.state_dict()
        whole.load_state_dict(
            {
                **sae.state_dict(),
                **{name: scaling[name] for name in ("scale", "center")},
                "W_enc": sae.W_enc @ to_space,
                "W_dec": sae.W_dec @ back,
                "b_dec": self.scaling.b_dec + sae.b_dec @ back,
            }
        )
        return whole


def start(settings: TrainSettings, data: TrainingData) -> tuple[Space, SparseAutoencoder]:
    """The space of a training, and the SAE that it starts with there: seeded, and scaled to the training rows.

    With `init`, the first directions are those that are computed from the templates, of unit length in the decoder;
    where there are fewer of them than features, the others are random.

    Raises: UserError for more dimensions than templates have.
    """
    torch.manual_seed(settings.seed)
    d_in = data.templates.width
    d_sae = settings.expansion * d_in
    sae = untrained(settings.variant, settings.whiten or d_in, d_sae, normalize=settings.normalize)
    # Whitened space takes nothing but the scaling from an SAE of templates, so that one feature is enough.
    scaling = untrained(ReluSettings(), d_in, 1, normalize=settings.normalize) if settings.whiten else sae
    fit_scaling(scaling, data, center=settings.center)
    space = Space(scaling, data, whiten=settings.whiten)
    if settings.init != "random":
        _begin_with(sae, settings.init, space.centered(data), seed=settings.seed)
    return space, sae


@torch.no_grad()
def _begin_with(sae: SparseAutoencoder, name: str, x: Float[np.ndarray, "n d_in"], *, seed: int) -> None:
    found = DIRECTIONS[name](x, sae.d_sae, seed)
    size = np.linalg.norm(found.decoder, axis=1, keepdims=True).clip(min=1e-12)
    first = slice(len(size))
    sae.W_dec[first] = torch.from_numpy(found.decoder / size).float()
    sae.W_enc[first] = torch.from_numpy(found.encoder * size).float() * sae.initial_encoder_norm()
