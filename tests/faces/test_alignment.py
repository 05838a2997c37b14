"""The similarity is the least-squares one, and the warp puts pixels where it says without aliasing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fsae_mlflow.faces.alignment import TEMPLATE, align, central_crop, fitted, similarity, warp


def by_least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A similarity is linear in (a, b, tx, ty): x' = a x - b y + tx, y' = b x + a y + ty."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty]])


@given(st.lists(st.floats(0, 250, allow_subnormal=False).map(lambda x: round(x, 3)), min_size=10, max_size=10))
def test_similarity_is_the_least_squares_solution(numbers: list[float]) -> None:
    source = np.array(numbers).reshape(5, 2)
    if np.ptp(source, axis=0).min() < 1:
        source = source + np.arange(10).reshape(5, 2) ** 2
    np.testing.assert_allclose(similarity(source, TEMPLATE), by_least_squares(source, TEMPLATE), atol=1e-6)


def test_similarity_recovers_a_known_transformation_and_never_mirrors() -> None:
    angle, scale = np.deg2rad(45), 0.37
    forward = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = np.array([12.0, -7.0])
    source = (TEMPLATE - shift) @ np.linalg.inv(forward).T
    np.testing.assert_allclose(similarity(source, TEMPLATE), np.column_stack([forward, shift]), atol=1e-9)
    mirrored = similarity(TEMPLATE * (-1, 1), TEMPLATE)
    assert np.linalg.det(mirrored[:, :2]) > 0


def test_coinciding_keypoints_are_refused() -> None:
    with pytest.raises(ValueError, match="same point"):
        similarity(np.full((5, 2), 7.0), TEMPLATE)


def placed(scale: float, angle: float, size: tuple[int, int]) -> np.ndarray:
    """The template's keypoints in a picture of this size: scaled, turned, in its middle."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (TEMPLATE - 55.5) @ (scale * turn).T + (np.array(size) - 1) / 2


@pytest.mark.parametrize(("scale", "angle"), [(0.6, 0.3), (1.0, 0.0), (1.9, -0.8), (6.0, 0.5)])
def test_marks_at_the_keypoints_land_on_the_template(scale: float, angle: float) -> None:
    size = (900, 800)
    keypoints = placed(scale, angle, size)
    picture = Image.new("L", size)
    draw = ImageDraw.Draw(picture)
    radius = max(2.0, 2 * scale)
    for x, y in np.round(keypoints):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    face = align(np.asarray(picture.convert("RGB")), np.round(keypoints))[..., 0].astype(float)
    for x, y in TEMPLATE:
        left, top = int(x) - 6, int(y) - 6
        patch = face[top : top + 13, left : left + 13]
        assert patch.max() > 150
        center = np.array(
            [(patch.sum(0) * np.arange(13)).sum(), (patch.sum(1) * np.arange(13)).sum()]
        ) / patch.sum() + (left, top)
        np.testing.assert_allclose(center, (x, y), atol=0.6)


def test_the_identity_leaves_every_pixel_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp(picture, np.array([[1.0, 0, 0], [0, 1.0, 0]])), picture)
    np.testing.assert_array_equal(central_crop(picture, 1.0), picture)
    np.testing.assert_array_equal(fitted(picture), picture)


@pytest.mark.parametrize("scale", [1.6, 2.0, 3.3, 5.0, 9.0])
def test_a_resolution_chart_finer_than_the_face_comes_out_gray(scale: float) -> None:
    """Stripes one source pixel wide lie beyond what 112 pixels resolve: they must average, not beat."""
    side = round(112 * scale * 1.6)
    stripes = np.zeros((side, side, 3), np.uint8)
    stripes[:, ::2] = 255
    for chart in (stripes, stripes.transpose(1, 0, 2).copy()):
        face = align(chart, placed(scale, 0.0, (side, side)))
        assert face.astype(float).std() < 4
        np.testing.assert_allclose(face.mean(), 127.5, atol=3)


def test_detail_that_112_pixels_can_hold_survives_the_shrinking() -> None:
    scale, period = 4.0, 8
    side = 720
    wave = 127.5 + 127 * np.sin(2 * np.pi * np.arange(side) / (scale * period))
    chart = np.repeat(np.broadcast_to(wave, (side, side))[..., None], 3, axis=2).astype(np.uint8)
    face = align(chart, placed(scale, 0.0, (side, side)))
    assert np.ptp(face[56].astype(float)) > 0.85 * 254


def test_outside_the_picture_is_black() -> None:
    face = align(np.full((60, 60, 3), 200, np.uint8), TEMPLATE)
    assert face[:55, :55].min() == 200
    assert face[65:, 65:].max() == 0
    assert align(np.full((60, 60, 3), 200, np.uint8), TEMPLATE + 5000).max() == 0
