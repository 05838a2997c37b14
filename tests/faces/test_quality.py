import numpy as np
import pytest
from matplotlib.colors import rgb_to_hsv
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


def test_roll_is_the_angle_of_the_eyes() -> None:
    level = TEMPLATE.copy()
    level[1, 1] = level[0, 1]
    assert quality.roll(level) == 0
    lower_right_eye = level.copy()
    lower_right_eye[1, 1] += level[1, 0] - level[0, 0]
    assert quality.roll(lower_right_eye) == pytest.approx(45)
    assert quality.roll(lower_right_eye[::-1][[3, 4, 2, 1, 0]]) == pytest.approx(45 - 180)
    assert quality.roll(np.array([[4.0, 4], [4, 9], [0, 0], [0, 0], [0, 0]])) == 90
    assert np.isnan(quality.roll(np.ones((5, 2))))
    assert np.isnan(quality.roll(np.full((5, 2), np.nan)))


def test_face_size_is_the_root_of_the_area() -> None:
    assert quality.face_size(np.array([10.0, 20, 19, 24])) == pytest.approx(6)
    assert quality.face_size(np.array([10.0, 20, 5, 24])) == 0


def test_brightness_is_the_mean_luma() -> None:
    face = np.random.default_rng(2).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    assert quality.brightness(face) == pytest.approx((face @ [0.299, 0.587, 0.114]).mean())


def test_grayness_is_one_minus_the_saturation_weighted_by_value() -> None:
    face = np.random.default_rng(3).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    hsv = rgb_to_hsv(face / 255)
    assert quality.grayness(face) == pytest.approx(1 - np.average(hsv[..., 1], weights=hsv[..., 2]))
    gray = np.repeat(face[..., :1], 3, axis=2)
    assert quality.grayness(gray) == 1
    assert quality.grayness(np.zeros_like(face)) == 1
