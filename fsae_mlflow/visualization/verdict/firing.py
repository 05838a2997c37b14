"""How an image fires its target, measured on the saved 8-bit file, on shifted copies, and on a JPEG of it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from PIL import Image
from torch import nn

from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.targets import Target

SHIFT = 2
JPEG_QUALITY = 90
IMAGES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A target on the real faces of a template set.

    `density`: share of the faces, 0…1, that fire it. `maximum`: its largest activation. `percentile`: its 99.9th
    percentile over all faces, where a face that does not fire it counts as 0. `mean_norm`: the faces' mean ‖x‖.
    `values` and `shares`: activations in ascending order, and the share of all faces at or below each.
    """

    density: float
    maximum: float
    percentile: float
    mean_norm: float
    values: Float[np.ndarray, " points"]
    shares: Float[np.ndarray, " points"]

    @classmethod
    def of(cls, activity: Activity, feature: int) -> "Reference":
        """A row of a survey's activity."""
        values, shares = activity.distribution(feature)
        return cls(
            density=float(activity.density[feature]),
            maximum=float(activity.maxima[feature]),
            percentile=float(activity.percentile[feature]),
            mean_norm=activity.mean_norm,
            values=values,
            shares=shares,
        )

    def percentile_of(self, activation: float) -> float:
        """The share of real faces, in percent, whose activation is at most this one, between known quantiles linear."""
        return 100 * float(np.interp(activation, self.values, self.shares))


@dataclass(frozen=True, kw_only=True)
class Firing:
    """How strongly an image fires its target.

    `activation`: of the saved image; of a combination it is a share (targets.py). `shifted`: the smallest of four
    shifts by 2 pixels. `jpeg`: after JPEG at quality 90. `percentile`: of `activation` among real faces, 0…100.
    `to_maximum`: `activation` divided by the largest of real faces (nan where that is 0). `rank`: place of the feature
    among all features of the image, 1 for the strongest; of several to fire the weakest counts, and the others are left
    out. `margin`: its activation divided by that of the strongest other. `norm_ratio`: ‖x‖ divided by the real faces'
    mean ‖x‖.
    """

    activation: float
    shifted: float
    jpeg: float
    percentile: float
    to_maximum: float
    rank: int
    margin: float
    norm_ratio: float


@torch.no_grad()
def firing(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
    targets: Sequence[Target],
    references: Sequence[Reference],
    *,
    maxima: Float64[np.ndarray, " d_sae"],
    recognizer: nn.Module,
    sae: SparseAutoencoder,
) -> list[Firing]:
    """Measure each picture's target; `maxima` are the largest activations of real faces."""
    device, found = sae.scale.device, []
    largest = torch.tensor(maxima)
    for first in range(0, len(pictures), IMAGES_AT_ONCE):
        part = pictures[first : first + IMAGES_AT_ONCE]
        faces = torch.from_numpy(np.stack([variant for picture in part for variant in _variants(picture)]))
        templates = recognizer(to_float(faces).to(device))
        activations = sae.encode(templates).double().view(len(part), -1, sae.d_sae).cpu()
        norms = templates.norm(dim=1).view(len(part), -1)[:, 0].cpu()
        for of_picture, norm, target, reference in zip(
            activations, norms, targets[first:], references[first:], strict=False
        ):
            own = target.activation(of_picture, largest)
            activation, others, fired = float(own[0]), of_picture[0].clone(), list(target.fired)
            weakest = float(others[fired].min())
            others[fired] = -torch.inf
            found.append(
                Firing(
                    activation=activation,
                    shifted=float(own[2:].min()),
                    jpeg=float(own[1]),
                    percentile=reference.percentile_of(activation),
                    to_maximum=_ratio(activation, reference.maximum),
                    rank=1 + int((others > weakest).sum()),
                    margin=_ratio(weakest, float(others.max())),
                    norm_ratio=float(norm) / reference.mean_norm,
                )
            )
    return found


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """A saved image, RGB."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def _variants(picture: UInt8[np.ndarray, "h w 3"]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The picture, its JPEG, and four shifts with edges replicated."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=JPEG_QUALITY)
    height, width, _ = picture.shape
    padded = np.pad(picture, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    corners = [(SHIFT, 0), (SHIFT, 2 * SHIFT), (0, SHIFT), (2 * SHIFT, SHIFT)]
    shifted = [padded[y : y + height, x : x + width] for y, x in corners]
    return [picture, np.asarray(Image.open(content).convert("RGB")), *shifted]


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0 else float("nan")
