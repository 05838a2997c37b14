"""Random views of aligned faces: always new ones, so that a student cannot memorize them."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def augment(
    faces: Float[Tensor, "batch 3 h w"], *, strength: float, mixup: float, generator: torch.Generator
) -> Float[Tensor, "batch 3 h w"]:
    """Random views of faces (0…1), with the same shape and range.

    Standard deviations at strength 1: shift 2.5 % of the width, rotation 4°, scale 5 % (each axis), a smooth random
    warp of 1 %, brightness 8 %, contrast and gamma 20 %, color 5 %. Half of the views are mirrored, a tenth turn gray,
    a third lose resolution, a fifth lose a rectangle. `mixup` is the share that blends two views: where two functions
    are matched, an input need not be a person's face.
    """
    if strength > 0:
        faces = _warp(faces, strength, generator)
        faces = _light(faces, strength, generator)
        faces = _soften(faces, strength, generator)
        faces = _erase(faces, strength, generator)
    if mixup > 0:
        chosen, share = torch.rand(2, len(faces), 1, 1, 1, generator=generator)
        faces = torch.lerp(faces, faces.roll(1, 0), (chosen < mixup) * share / 2)
    return faces


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator).clamp(-2.5, 2.5)


def _warp(faces: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    n, _, height, width = faces.shape
    angle = _normal(n, generator=generator) * 0.07 * strength
    scale = 1 + _normal(n, 2, generator=generator) * 0.05 * strength
    mirror = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * scale[:, 0] * mirror, -angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin() * mirror, angle.cos() * scale[:, 1]
    theta[:, :, 2] = _normal(n, 2, generator=generator) * 0.05 * strength
    grid = functional.affine_grid(theta, [n, 3, height, width], align_corners=False)
    coarse = _normal(n, 2, 5, 5, generator=generator) * 0.02 * strength
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
    return functional.grid_sample(faces, grid + smooth.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def _light(faces: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    n = len(faces)
    gamma = (_normal(n, 1, 1, 1, generator=generator) * 0.2 * strength).exp()
    contrast = (_normal(n, 1, 1, 1, generator=generator) * 0.2 * strength).exp()
    color = (_normal(n, 3, 1, 1, generator=generator) * 0.05 * strength).exp()
    brightness = _normal(n, 1, 1, 1, generator=generator) * 0.08 * strength
    gray = torch.rand(n, 1, 1, 1, generator=generator) < 0.1 * strength
    faces = torch.where(gray, faces.mean(1, keepdim=True), faces)
    faces = faces.clamp(1e-3, 1).pow(gamma) * color
    middle = faces.mean((1, 2, 3), keepdim=True)
    return ((faces - middle) * contrast + middle + brightness).clamp(0, 1)


def _soften(faces: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Shrink a third of the faces to 40…90 % and enlarge them again, in groups of one size each."""
    chosen = torch.randperm(len(faces), generator=generator)[: round(len(faces) * min(strength / 3, 1))]
    faces = faces.clone()
    for group in chosen.chunk(4) if len(chosen) else ():
        size = int(faces.shape[-1] * (0.4 + 0.5 * float(torch.rand((), generator=generator))))
        small = functional.interpolate(faces[group], (size, size), mode="bilinear", align_corners=False, antialias=True)
        faces[group] = functional.interpolate(small, faces.shape[-2:], mode="bilinear", align_corners=False).clamp(0, 1)
    return faces


def _erase(faces: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    n, _, height, width = faces.shape
    center, half = torch.rand(n, 2, generator=generator), 0.05 + 0.15 * torch.rand(n, 2, generator=generator)
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    inside = ((rows - center[:, :1]).abs() < half[:, :1])[:, :, None] & ((columns - center[:, 1:]).abs() < half[:, 1:])[
        :, None, :
    ]
    chosen = torch.rand(n, 1, 1, generator=generator) < 0.2 * strength
    fill = torch.rand(n, 3, 1, 1, generator=generator)
    return torch.where((inside & chosen)[:, None], fill, faces)
