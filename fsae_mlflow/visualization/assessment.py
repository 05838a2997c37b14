"""Whether an optimized image fires its feature, measured on the saved 8-bit file."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from fsae_mlflow.atomic import atomic_write
from fsae_mlflow.faces.aligned import to_float, to_pixels
from fsae_mlflow.sae.base import SparseAutoencoder

SHIFT = 2
JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A feature on the real faces of a template set.

    `density`: share of the faces, 0…1, that fire it. `maximum`: its largest activation. `percentile`: its 99.9th
    percentile over all faces, where a face that does not fire it counts as 0. `mean_norm`: the faces' mean ‖x‖.
    """

    density: float
    maximum: float
    percentile: float
    mean_norm: float


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """How strongly an image fires its feature.

    `activation`: of the saved image. `shifted`: mean over four shifts by 2 pixels. `jpeg`: after JPEG at quality 90.
    `to_maximum` and `to_percentile`: `activation` divided by the reference's `maximum` and `percentile` (nan where that
    is 0). `rank`: place of the feature among all features of the image, 1 for the strongest. `norm_ratio`: ‖x‖ divided
    by the real faces' mean ‖x‖.
    """

    activation: float
    shifted: float
    jpeg: float
    to_maximum: float
    to_percentile: float
    rank: int
    norm_ratio: float


def save_image(image: Float[Tensor, "3 h w"], path: Path) -> Path:
    """Write an image (RGB, 0…1) as an 8-bit PNG."""
    with atomic_write(path) as temporary:
        Image.fromarray(to_pixels(image[None])[0]).save(temporary, "PNG")
    return path


@torch.no_grad()
def assess(
    path: Path,
    feature: int,
    *,
    recognizer: nn.Module,
    sae: SparseAutoencoder,
    reference: Reference,
    device: torch.device,
) -> Assessment:
    """Read a saved image and measure `feature` on it, on shifted copies and on a JPEG of it."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    face = to_float(np.stack([np.asarray(image), np.asarray(_as_jpeg(image))]))
    padded = torch.nn.functional.pad(face[:1], [SHIFT] * 4, mode="replicate")
    height, width = face.shape[2:]
    corners = [(SHIFT, 0), (SHIFT, 2 * SHIFT), (0, SHIFT), (2 * SHIFT, SHIFT)]
    variants = torch.cat([face, *(padded[:, :, y : y + height, x : x + width] for y, x in corners)])
    templates = recognizer(variants.to(device))
    features = sae.encode(templates).cpu()
    activation = features[:, feature].double()
    return Assessment(
        activation=float(activation[0]),
        shifted=float(activation[2:].mean()),
        jpeg=float(activation[1]),
        to_maximum=_ratio(float(activation[0]), reference.maximum),
        to_percentile=_ratio(float(activation[0]), reference.percentile),
        rank=1 + int((features[0] > features[0, feature]).sum()),
        norm_ratio=float(templates[0].norm()) / reference.mean_norm,
    )


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0 else float("nan")


def _as_jpeg(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return Image.open(content).convert("RGB")
