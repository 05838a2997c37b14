"""Random changes of the images before each step, so that an image does not depend on the exact pixels: each image's
are drawn from its own generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8
GRAY = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """How far images are changed at most.

    `jitter`: shift in whole pixels. `scale`: relative change of size, 0.05 for 5 %. `rotation`: degrees. `noise`:
    standard deviation of noise on pixels in 0…1. `jpeg`: standard deviation of noise on the highest frequencies of
    8 × 8 blocks, which falls to 0 at the lowest, as JPEG's rounding does. `gray`: probability that a step sees the
    image without color.
    """

    jitter: int = 0
    scale: float = 0.0
    rotation: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    gray: float = 0.0

    def __call__(
        self, images: Float[Tensor, "images 3 h w"], generators: Sequence[torch.Generator]
    ) -> Float[Tensor, "images 3 h w"]:
        """The changed images, differentiable."""
        if self.jitter:
            images = _shifted(images, generators, largest=self.jitter)
        if self.scale or self.rotation:
            images = self._turned(images, generators)
        if self.jpeg:
            images = images + self.jpeg * _block_noise(images, generators)
        if self.noise:
            drawn = torch.stack([torch.randn(images.shape[1:], generator=one) for one in generators])
            images = images + self.noise * drawn.to(images)
        if self.gray:
            chosen = torch.tensor([float(torch.rand(1, generator=one)) < self.gray for one in generators])
            gray = (images * images.new_tensor(GRAY)[:, None, None]).sum(dim=1, keepdim=True).expand_as(images)
            images = torch.where(chosen.to(images.device)[:, None, None, None], gray, images)
        return images

    def _turned(
        self, images: Float[Tensor, "images 3 h w"], generators: Sequence[torch.Generator]
    ) -> Float[Tensor, "images 3 h w"]:
        drawn = torch.stack([2 * torch.rand(2, generator=one) - 1 for one in generators]).to(images)
        size, angle = 1 + self.scale * drawn[:, 0], math.radians(self.rotation) * drawn[:, 1]
        cosine, sine, zero = angle.cos() / size, angle.sin() / size, torch.zeros_like(size)
        maps = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _shifted(
    images: Float[Tensor, "images 3 h w"], generators: Sequence[torch.Generator], *, largest: int
) -> Float[Tensor, "images 3 h w"]:
    """Every image shifted by up to `largest` pixels in each direction, with edges replicated."""
    _, _, height, width = images.shape
    padded = F.pad(images, [largest] * 4, mode="replicate")
    shifts = [torch.randint(2 * largest + 1, (2,), generator=one).tolist() for one in generators]
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, shifts, strict=True)])


def _block_noise(
    images: Float[Tensor, "images 3 h w"], generators: Sequence[torch.Generator]
) -> Float[Tensor, "images 3 h w"]:
    """Noise whose frequencies in 8 × 8 blocks have standard deviations that rise from 0 to 1."""
    places = torch.arange(BLOCK, dtype=torch.get_default_dtype())
    cosines = torch.cos(math.pi / BLOCK * (places[:, None] + 0.5) * places) * math.sqrt(2 / BLOCK)
    cosines[:, 0] /= math.sqrt(2)
    weight = (places[:, None] + places) / (2 * (BLOCK - 1))
    _, channels, height, width = images.shape
    blocks = (channels, -(-height // BLOCK), -(-width // BLOCK), BLOCK, BLOCK)
    drawn = torch.stack([torch.randn(blocks, generator=one) for one in generators]) * weight
    noise = torch.einsum("yu,ncijuv,xv->nciyjx", cosines, drawn, cosines)
    return noise.flatten(4, 5).flatten(2, 3)[:, :, :height, :width].to(images)
