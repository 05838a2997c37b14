"""Mixtures of two templates as additional training data, against overfitting a small set."""

import torch
from jaxtyping import Float
from torch import Tensor


def mixup(
    templates: Float[Tensor, "batch d_in"], share: float, generator: torch.Generator
) -> Float[Tensor, "batch d_in"]:
    """The batch with this share of its rows x replaced by w · x + (1 − w) · x′, w uniform in 0…1, x′ a row like x.

    The norm of a mixture is the weighted mean of the norms of its parts, because no face has a template as short as the
    plain mixture. This is mixup (Zhang et al. 2018, arXiv 1710.09412) with α = 1, on the sphere.
    """
    if not share:
        return templates
    n = len(templates)
    other = templates[torch.randperm(n, generator=generator)]
    weight = torch.rand(n, 1, generator=generator)
    chosen = torch.rand(n, 1, generator=generator) < share
    mixture = weight * templates + (1 - weight) * other
    length = weight * templates.norm(dim=1, keepdim=True) + (1 - weight) * other.norm(dim=1, keepdim=True)
    mixture *= length / mixture.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.where(chosen, mixture, templates)
