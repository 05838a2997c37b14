"""What every recognizer is: a frozen, differentiable module that turns aligned faces into templates."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fsae_mlflow.errors import UserError
from fsae_mlflow.provenance import Origin
from fsae_mlflow.recognizers.card import RecognizerCard


class Recognizer(nn.Module):
    """A frozen face recognizer behind one interface, differentiable with respect to the faces.

    `network` takes images as the card describes them (size, channel order, normalized pixels) and returns templates.
    It is put into evaluation mode and stays there, so that a template depends on the face alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, card: RecognizerCard) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.card = card
        self.register_buffer("mean", torch.tensor(card.mean).view(1, 3, 1, 1) / 255)
        self.register_buffer("std", torch.tensor(card.std).view(1, 3, 1, 1) / 255)

    @property
    def origin(self) -> Origin:
        """The recognizer as the origin of templates."""
        return Origin.of("templates", dataclasses.asdict(self.card))

    def forward(self, faces: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch d"]:
        """Templates of aligned RGB faces (0…1), not L2-normalized unless the card says so.

        Faces of another size than the card's input_size are resized first.

        Raises: UserError for faces that do not have 3 channels, and for templates that are not finite or whose width
        differs from the card's.
        """
        if faces.shape[1] != 3:
            raise UserError(f"Recognizer {self.card.name} takes RGB faces of 3 channels; these have {faces.shape[1]}.")
        size = self.card.input_size
        if faces.shape[-2:] != (size, size):
            faces = functional.interpolate(faces, (size, size), mode="bilinear", align_corners=False, antialias=True)
        if self.card.channels == "bgr":
            faces = faces.flip(1)
        templates = self.network((faces - self.mean) / self.std)
        if templates.ndim != 2 or templates.shape[1] != self.card.template_width:
            raise UserError(
                f"Recognizer {self.card.name} must return templates of width {self.card.template_width}, as its card "
                f"says; it returns {list(templates.shape[1:])} values per face: correct template_width in the card."
            )
        if not torch.isfinite(templates).all():
            raise UserError(
                f"Recognizer {self.card.name} returned NaN or infinite templates; check its weights and its card."
            )
        return templates

    def train(self, mode: bool = True) -> "Recognizer":
        """Stay in evaluation mode when the surrounding module changes its mode."""
        return super().train(False)
