import numpy as np
import pytest
from scipy import ndimage

from fsae_mlflow.faces import quality
from fsae_mlflow.faces.alignment import TEMPLATE


def test_yaw_is_the_nose_offset_over_the_eye_distance() -> None:
    frontal = np.array([[30.0, 50], [70, 50], [50, 70], [35, 90], [65, 90]])
    assert quality.yaw(frontal) == 0
    to_the_right = frontal.copy()
    to_the_right[2, 0] += 12
    assert quality.yaw(to_the_right) == pytest.approx(0.3)
    mirrored = to_the_right[[1, 0, 2, 4, 3]] * (-1, 1)
    assert quality.yaw(mirrored) == pytest.approx(-0.3)


def test_yaw_does_not_change_when_the_head_is_tilted_or_enlarged() -> None:
    keypoints = TEMPLATE + np.array([[0, 0], [0, 0], [5, 3], [0, 0], [0, 0]])
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    assert quality.yaw(3 * keypoints @ turn.T + 40) == pytest.approx(quality.yaw(keypoints))


def test_yaw_of_coinciding_eyes_is_unknown() -> None:
    assert np.isnan(quality.yaw(np.ones((5, 2))))


def test_interocular_is_in_pixels() -> None:
    assert quality.interocular(np.array([[3.0, 4], [6, 8], [0, 0], [0, 0], [0, 0]])) == pytest.approx(5)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    face = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    expected = ndimage.laplace(face @ [0.299, 0.587, 0.114])[1:-1, 1:-1].var()
    assert quality.sharpness(face) == pytest.approx(expected)
    blurred = np.stack([ndimage.gaussian_filter(face[..., channel], 2) for channel in range(3)], axis=-1)
    assert quality.sharpness(blurred) < 0.1 * quality.sharpness(face)
