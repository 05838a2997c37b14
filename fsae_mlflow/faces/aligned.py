"""The aligned face: its size, and its two forms, 8-bit pixels and numbers from 0 to 1."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

FACE_SIZE = 112
"""Height and width of an aligned face in pixels."""

FacePixels = UInt8[np.ndarray, f"{FACE_SIZE} {FACE_SIZE} 3"]
"""One aligned face: RGB, 0…255."""


def to_float(faces: UInt8[np.ndarray, "n h w 3"] | UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """RGB pixels (0…255) as numbers (0…1), channels first, in channels-last memory, which is fastest to convolve."""
    return torch.as_tensor(faces).permute(0, 3, 1, 2).float() / 255


def to_pixels(faces: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """RGB numbers (clipped to 0…1) as pixels (0…255), rounded."""
    return (faces.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
