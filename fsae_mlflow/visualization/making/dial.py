"""A face for each value of a feature: the mean face, changed until its template moves by −3 to +3 standard deviations
along the feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fsae_mlflow.progress import progress
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.targets import Target, signed_sum

POSITIONS = (-3, -2, -1, 0, 1, 2, 3)
"""Standard deviations of the target's projection W_enc (s·x − b_dec) over real faces, from their mean."""
STEPS, LR = 40, 0.05
ALONG, ASIDE, PENALTY = 2.0, 0.5, 1.0


@dataclass(frozen=True, kw_only=True)
class Dial:
    """The pictures of a target at POSITIONS, RGB in 0…1, and where each came to stand: `reached` in standard
    deviations, and the `activation` of its feature.
    """

    target: Target
    images: Float[Tensor, "positions 3 h w"]
    reached: Float[np.ndarray, " positions"]
    activation: Float[np.ndarray, " positions"]


def dials(
    targets: Sequence[Target],
    *,
    typical: Float[Tensor, "targets 3 h w"],
    prior: FacePrior,
    real: RealTemplates,
    recognizer: nn.Module,
    sae: SparseAutoencoder,
    label: str = "dial",
) -> list[Dial]:
    """The dial of each target.

    At each position it is the face mean + Σ c_k σ_k u_k that minimizes

        2 ((p − position) / 3)² + 0.5 ‖Δx − Δx·d d‖² + Σ (c_k − position / 3 · c'_k)² / k

    p: standard deviations of the projection from real faces' mean, d: the unit decoder direction, Δx: how far the
    scaled template moved from that of the mean face, c': the coefficients of `typical`, the target's typical face. The
    second term keeps all else of the template as it is, the third lets the face change as faces do.
    """
    device = sae.scale.device
    scaled = prior.scaled_components.to(device)
    mean = prior.mean.to(device)
    n = len(POSITIONS)
    encoder = signed_sum(sae.feature_directions, targets).repeat_interleave(n, dim=0)
    decoder = F.normalize(signed_sum(F.normalize(sae.W_dec, dim=1), targets), dim=1).repeat_interleave(n, dim=0)
    centers, stds = (
        encoder.new_tensor([getattr(real.reach[target], name) for target in targets]).repeat_interleave(n)
        for name in ("mean", "std")
    )
    wanted = encoder.new_tensor(POSITIONS).repeat(len(targets))
    with torch.no_grad():
        before = sae.scaled(recognizer(mean[None]))
    toward = prior.coefficients_of(typical).to(device)
    begin = toward.repeat_interleave(n, dim=0) * (wanted / max(POSITIONS))[:, None]
    coefficients = begin.clone().requires_grad_()
    optimizer = torch.optim.Adam([coefficients], lr=LR)

    def pictures() -> Float[Tensor, "images 3 h w"]:
        return (mean + (coefficients @ scaled).unflatten(1, mean.shape)).clamp(0, 1)

    def position(x: Float[Tensor, "images d_in"]) -> Float[Tensor, " images"]:
        return (((x - sae.b_dec) * encoder).sum(dim=1) - centers) / stds.clamp(min=1e-12)

    for _ in progress(range(STEPS), total=STEPS, label=label, unit="steps"):
        optimizer.zero_grad(set_to_none=True)
        x = sae.scaled(recognizer(pictures()))
        moved = x - before
        aside = moved - (moved * decoder).sum(dim=1, keepdim=True) * decoder
        loss = ALONG * ((position(x) - wanted) / max(POSITIONS)).square()
        loss = loss + ASIDE * aside.square().sum(dim=1) + PENALTY * (coefficients - begin).square().mean(dim=1)
        loss.sum().backward()
        optimizer.step()
    with torch.no_grad():
        made = pictures()
        templates = recognizer(made)
        reached = position(sae.scaled(templates)).view(-1, n).cpu().numpy()
        activations = sae.encode(templates).view(-1, n, sae.d_sae).cpu()
    maxima = activations.new_tensor(real.maxima)
    return [
        Dial(target=target, images=images, reached=one, activation=target.activation(features, maxima).numpy())
        for target, images, one, features in zip(
            targets, made.view(-1, n, *mean.shape).cpu(), reached, activations, strict=True
        )
    ]
