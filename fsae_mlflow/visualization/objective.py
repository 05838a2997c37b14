"""What an image is optimized for: the gate of a feature."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fsae_mlflow.sae.base import SparseAutoencoder


def gate_objective(
    sae: SparseAutoencoder, features: Int64[Tensor, " images"], templates: Float[Tensor, "images d_in"]
) -> Float[Tensor, " images"]:
    """W_gate (s·x − b_dec) for raw template x and feature of each image, where s is the SAE's scale (the paper, section
    3).

    It is linear in x and so grows with ‖x‖ alone; the norm is recorded with it.
    """
    return ((sae.scaled(templates) - sae.b_dec) * sae.feature_directions[features]).sum(dim=1)


def jittered(
    images: Float[Tensor, "images 3 h w"], generators: Sequence[torch.Generator], *, largest: int
) -> Float[Tensor, "images 3 h w"]:
    """Every image shifted by up to `largest` pixels in each direction, with edges replicated; each shift is drawn from
    the image's own generator.
    """
    if largest == 0:
        return images
    _, _, height, width = images.shape
    padded = functional.pad(images, [largest] * 4, mode="replicate")
    shifts = [torch.randint(2 * largest + 1, (2,), generator=generator).tolist() for generator in generators]
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, shifts, strict=True)])
