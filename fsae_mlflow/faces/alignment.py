"""Five keypoints → 112 x 112 aligned face."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

SIZE = 112

# Left eye, right eye, nose, left and right mouth corner as seen in the image: the ArcFace template (arXiv 1801.07698).
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# A face this many times larger than the template is shrunk before the warp. Below it plain bilinear sampling aliases
# little, and recognizers were trained on faces made that way: shrinking LFW's (1.2 times larger) costs 0.13 % accuracy.
SHRINK_FROM = 1.5

# The homogeneous coordinates of the face's pixels, row by row.
FACE_PIXELS = np.stack([*np.meshgrid(np.arange(SIZE), np.arange(SIZE)), np.ones((SIZE, SIZE))], axis=-1).reshape(-1, 3)


def similarity(source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "2 3"]:
    """The rotation, uniform scale and shift A with target ≈ A · (x, y, 1) and the least squared distance.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991. In the plane, as
    complex numbers, rotation and scale are one factor, and its regression line is the solution.

    Raises: ValueError where all source points coincide.
    """
    here, there = (points.astype(np.float64) @ (1, 1j) for points in (source, target))
    centerd = here - here.mean()
    variance = np.vdot(centerd, centerd).real
    if variance == 0:
        raise ValueError("keypoints must not all be the same point; they are, so the picture cannot be aligned.")
    turn = np.vdot(centerd, there) / variance
    shift = there.mean() - turn * here.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(
    image: UInt8[np.ndarray, "height width 3"], keypoints: Float[np.ndarray, "5 2"]
) -> UInt8[np.ndarray, "112 112 3"]:
    """Warp a face so that its keypoints lie on the template; outside the picture is black.

    Coordinates have pixel centers at integers. A large face is first shrunk with an antialiasing filter.
    """
    return warp(image, similarity(keypoints, TEMPLATE))


def central_crop(image: UInt8[np.ndarray, "height width 3"], share: float) -> UInt8[np.ndarray, "112 112 3"]:
    """The central square, `share` of the shorter side wide, at 112 x 112."""
    height, width = image.shape[:2]
    scale = SIZE / (share * min(height, width))
    center = (SIZE - 1) / 2
    return warp(
        image,
        np.array([[scale, 0.0, center - scale * (width - 1) / 2], [0.0, scale, center - scale * (height - 1) / 2]]),
    )


def fitted(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "112 112 3"]:
    """A picture that is aligned already, at 112 x 112."""
    if image.shape == (SIZE, SIZE, 3):
        return image
    return np.array(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def warp(
    image: UInt8[np.ndarray, "height width 3"], forward: Float[np.ndarray, "2 3"]
) -> UInt8[np.ndarray, "112 112 3"]:
    """Sample a 112 x 112 face; `forward` takes source coordinates to face coordinates."""
    inverse = np.linalg.inv(np.vstack([forward, [0.0, 0.0, 1.0]]))[:2]
    scale = np.sqrt(abs(np.linalg.det(forward[:, :2])))
    left, top, right, bottom = _needed(inverse, image.shape[1], image.shape[0])
    if right <= left or bottom <= top:
        return np.zeros((SIZE, SIZE, 3), np.uint8)
    crop = image[top:bottom, left:right]
    if scale * SHRINK_FROM < 1:
        size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
        crop = np.asarray(Image.fromarray(crop).resize(size, Image.Resampling.LANCZOS))
    # from pixels of the picture to grid_sample's coordinates, which span the crop from -1 to 1 between its outer edges
    spread = 2 / np.array([right - left, bottom - top])
    inverse[:, 2] += 0.5 - np.array([left, top])
    grid = FACE_PIXELS @ (inverse * spread[:, None]).T - 1
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float(),
        torch.from_numpy(grid.astype(np.float32)).view(1, SIZE, SIZE, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def _needed(inverse: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of the source that the face is sampled from, with room for the filters: left, top, right, bottom."""
    corners = np.array([[0, 0], [SIZE, 0], [0, SIZE], [SIZE, SIZE]]) - 0.5
    points = corners @ inverse[:, :2].T + inverse[:, 2]
    room = 2 + 4 * np.sqrt(abs(np.linalg.det(inverse[:, :2])))
    left, top = np.floor(points.min(axis=0) - room).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0) + room).astype(int).tolist()
    return max(0, left), max(0, top), min(width, right), min(height, bottom)
