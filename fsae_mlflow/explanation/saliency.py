"""Where on a face a feature looks: what of the face, against the blurred face, raises its preactivation.

The gradient of the preactivation with respect to the pixels, through the recognizer, is averaged over copies of the
face with noise (SmoothGrad, Smilkov et al. 2017, arXiv 1706.03825). Times face − blurred face, and summed over the
colors, it says to first order what blurring a pixel takes from the feature. The map is this, blurred, where positive.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from fsae_mlflow.sae.base import SparseAutoencoder

COPIES_AT_ONCE = 16
Embed = Callable[[Float[Tensor, "n 3 h w"]], Float[Tensor, "n d_in"]]
"""Templates of aligned RGB faces, 0…1."""
SMOOTHING, BLUR = 4.0, 6.0
"""Standard deviations of the blur of maps and of faces, in pixels."""


def saliency_maps(
    face: Float[Tensor, "3 h w"],
    features: Sequence[int],
    *,
    embed: Embed,
    sae: SparseAutoencoder,
    noise: float,
    n_copies: int,
    seed: int,
) -> Float[Tensor, "features h w"]:
    """The map of each feature on one aligned face (RGB, 0…1), between 0 and 1 (its largest value).

    `noise`: the standard deviation of the noise in the copies.
    """
    generator = torch.Generator().manual_seed(seed)
    sums = torch.zeros(len(features), *face.shape)
    chosen = torch.tensor(features, device=face.device)
    for first in range(0, n_copies, COPIES_AT_ONCE):
        n = min(COPIES_AT_ONCE, n_copies - first)
        copies = face + noise * torch.randn(n, *face.shape, generator=generator).to(face.device)
        copies = copies.contiguous(memory_format=torch.channels_last).requires_grad_(True)
        totals = sae.gate_preactivation(embed(copies))[:, chosen].sum(dim=0)
        for place, total in enumerate(totals):
            (gradient,) = torch.autograd.grad(total, copies, retain_graph=place + 1 < len(totals))
            sums[place] += gradient.sum(dim=0).cpu()
    return smoothed((sums * (face - blurred(face)).cpu()).sum(dim=1))


def blurred(faces: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
    """Faces without what is finer than about 6 pixels."""
    return gaussian_blur(faces, [2 * round(3 * BLUR) + 1] * 2, [BLUR] * 2)


def smoothed(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Maps blurred by a Gaussian (σ = 4 pixels), where they are positive, each divided by its largest value."""
    maps = gaussian_blur(maps, [2 * round(3 * SMOOTHING) + 1] * 2, [SMOOTHING] * 2).clamp(min=0)
    return maps / maps.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
