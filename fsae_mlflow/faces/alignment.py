"""Five keypoints → aligned face."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from fsae_mlflow.faces.aligned import FACE_SIZE, FacePixels

# Left eye, right eye, nose, left and right mouth corner as seen in the image: the ArcFace template (arXiv 1801.07698).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# A face this many times larger than the template is shrunk before the warp. Below this, bilinear sampling aliases
# little, and recognizers were trained on faces made that way: shrinking LFW's (1.2 times larger) costs 0.13 % accuracy.
SHRINK_FROM = 1.5

# The homogeneous coordinates of the face's pixels, row by row.
FACE_PIXELS = np.stack(
    [*np.meshgrid(np.arange(FACE_SIZE), np.arange(FACE_SIZE)), np.ones((FACE_SIZE, FACE_SIZE))], axis=-1
).reshape(-1, 3)


def similarity(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "2 3"]:
    """The rotation, uniform scale and shift A with target ≈ A · (x, y, 1) and the least squared distance.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991. With points of
    the plane as complex numbers, rotation and scale are one factor, which linear regression gives.

    Raises: ValueError if all source points are the same.
    """
    here, there = (points.astype(np.float64) @ (1, 1j) for points in (source, target))
    centered = here - here.mean()
    variance = np.vdot(centered, centered).real
    if variance == 0:
        raise ValueError("The keypoints are all the same point, so the picture cannot be aligned.")
    factor = np.vdot(centered, there) / variance
    shift = there.mean() - factor * here.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def align(image: UInt8[np.ndarray, "height width 3"], keypoints: Float[np.ndarray, "5 2"]) -> FacePixels:
    """Warp a face so that its keypoints lie on the template; outside the picture is black.

    Keypoints are in pixels, with pixel centers at integers. A large face is first shrunk with an antialiasing filter.
    """
    return warp(image, similarity(keypoints, TEMPLATE))


def central_crop(image: UInt8[np.ndarray, "height width 3"], share: float) -> FacePixels:
    """The central square of a picture at the size of an aligned face; its side is `share` of the shorter side."""
    height, width = image.shape[:2]
    scale = FACE_SIZE / (share * min(height, width))
    center = (FACE_SIZE - 1) / 2
    return warp(
        image,
        np.array([[scale, 0.0, center - scale * (width - 1) / 2], [0.0, scale, center - scale * (height - 1) / 2]]),
    )


def fitted(image: UInt8[np.ndarray, "height width 3"]) -> FacePixels:
    """A picture of an already aligned face, resized to the size of an aligned face."""
    if image.shape == (FACE_SIZE, FACE_SIZE, 3):
        return image
    return np.array(Image.fromarray(image).resize((FACE_SIZE, FACE_SIZE), Image.Resampling.BICUBIC))


def warp(image: UInt8[np.ndarray, "height width 3"], forward: Float[np.ndarray, "2 3"]) -> FacePixels:
    """Sample an aligned face from a picture; `forward` maps coordinates of the picture to those of the face."""
    inverse = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    scale = np.sqrt(abs(np.linalg.det(forward[:, :2])))
    left, top, right, bottom = _needed(inverse, image.shape[1], image.shape[0])
    if right <= left or bottom <= top:
        return np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8)
    crop = image[top:bottom, left:right]
    if scale * SHRINK_FROM < 1:
        size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
        crop = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.LANCZOS))
    # From pixels of the picture to coordinates of grid_sample, which go from -1 to 1 between the crop's outer edges.
    unit = 2 / np.array([right - left, bottom - top])
    inverse[:, 2] += 0.5 - np.array([left, top])
    grid = FACE_PIXELS @ (inverse * unit[:, None]).T - 1
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float(),
        torch.from_numpy(grid.astype(np.float32)).view(1, FACE_SIZE, FACE_SIZE, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _needed(inverse: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part that the face is sampled from, with a margin for the filters."""
    corners = np.array([[0, 0], [FACE_SIZE, 0], [0, FACE_SIZE], [FACE_SIZE, FACE_SIZE]]) - 0.5
    points = corners @ inverse[:, :2].T + inverse[:, 2]
    margin = 2 + 4 * np.sqrt(abs(np.linalg.det(inverse[:, :2])))
    left, top = np.floor(points.min(axis=0) - margin).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0) + margin).astype(int).tolist()
    return max(0, left), max(0, top), min(width, right), min(height, bottom)
