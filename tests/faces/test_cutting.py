import numpy as np
import pytest
import torch

from fsae_mlflow.faces.alignment import TEMPLATE, similarity
from fsae_mlflow.faces.cutting import FaceCutter
from fsae_mlflow.faces.decoding import Decoded
from fsae_mlflow.faces.detection.keypoints import Faces
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.storage import Location

CPU = torch.device("cpu")


def items(*pictures: np.ndarray | None) -> list[Decoded]:
    return [
        Decoded(Picture(f"p{number}", "p", Location("")), pixels, "" if pixels is not None else "It is broken.")
        for number, pixels in enumerate(pictures)
    ]


def cutter_for(**given: object) -> FaceCutter:
    plain = {"aligned": False, "face": "central", "no_face": "record", "min_face": 20.0, "min_face_share": 0.0}
    return FaceCutter(**{**plain, "enlarge": 1, "pad": 0.0, **given}, device=CPU)


BLANK = np.full((100, 80, 3), 90, np.uint8)


def test_each_picture_gives_a_face_or_a_reason(portraits: list[np.ndarray]) -> None:
    faces, failures = cutter_for()(items(portraits[0], None, BLANK, portraits[1]))
    assert [face.image_id for face in faces] == ["p0", "p3"]
    assert failures == [("p1", "It is broken."), ("p2", "No face was found in the picture.")]
    for face in faces:
        assert (face.source_width, face.source_height) == (184, 224)
        assert face.probability > 0.9
        assert (face.box[:2] < face.keypoints.min(axis=0)).all()
        assert (face.box[2:] > face.keypoints.max(axis=0)).all()


def test_all_faces_of_a_picture_from_left_to_right(portraits: list[np.ndarray]) -> None:
    group = np.concatenate(portraits[:3], axis=1)
    faces, failures = cutter_for(face="all")(items(group))
    assert [face.image_id for face in faces] == ["p0", "p0#1", "p0#2"]
    assert not failures
    assert np.all(np.diff([face.box[0] for face in faces]) > 100)


@pytest.mark.parametrize(("pad", "border"), [(0.0, 0), (0.1, 18)])
def test_enlarging_and_padding_are_for_the_detection_alone(
    portraits: list[np.ndarray], pad: float, border: int
) -> None:
    keypoints = TEMPLATE.astype(np.float32) + np.array([30, 60], np.float32)
    box = np.array([2.5, 3.5, 99.5, 199.5], np.float32)
    seen: list[tuple[int, ...]] = []

    def find(pictures: list[np.ndarray]) -> list[Faces]:
        seen.extend(picture.shape for picture in pictures)
        there = [(places + border + 0.5) * 3 - 0.5 for places in (box, keypoints)]  # enlarged threefold
        return [Faces(there[0][None], there[1][None], np.ones(1, np.float32))]

    cutter = cutter_for(enlarge=3, pad=pad)
    cutter.find = find
    (face,), _ = cutter(items(portraits[0]))
    assert seen == [((224 + 2 * border) * 3, (184 + 2 * border) * 3, 3)]
    np.testing.assert_allclose(face.keypoints, keypoints, atol=1e-4)
    np.testing.assert_allclose(face.box, box, atol=1e-4)
    np.testing.assert_array_equal(face.pixels, portraits[0][60:172, 30:142])


def test_padding_moves_neither_the_middle_nor_the_smallest_face() -> None:
    cutter = cutter_for(pad=0.25, min_face_share=0.3)
    assert cutter.find.min_face_share == pytest.approx(0.2)
    middles = np.array([[40, 50], [60, 70]], np.float32)  # of the picture, and of the picture with a border of 20
    boxes = np.column_stack([middles - 10, middles + 10])
    keypoints = TEMPLATE.astype(np.float32) + np.array([[[1, 0]], [[2, 0]]], np.float32)
    cutter.find = lambda pictures: [Faces(boxes, keypoints, np.ones(2, np.float32))]
    (face,), _ = cutter(items(BLANK))
    np.testing.assert_allclose(face.box, [30, 40, 50, 60], atol=1e-4)


def test_a_padded_picture_keeps_the_keypoints_of_a_face_at_its_edge(portraits: list[np.ndarray]) -> None:
    whole, _ = cutter_for(pad=0.2)(items(*portraits))
    lefts = [int(face.keypoints[:, 0].min()) - 25 for face in whole]
    tight = [portrait[:, left:] for portrait, left in zip(portraits, lefts, strict=True)]
    off: dict[float, list[float]] = {}
    for pad in (0.0, 0.2):
        found = {face.image_id: face for face in cutter_for(pad=pad, no_face="central_crop")(items(*tight))[0]}
        off[pad] = [
            float(np.abs(np.nan_to_num(found[face.image_id].keypoints) - (face.keypoints - cut_off)).max())
            for face, cut_off in zip(whole, np.column_stack([lefts, np.zeros(len(lefts))]), strict=True)
        ]
        assert [face.source_width for face in found.values()] == [picture.shape[1] for picture in tight]
    assert max(off[0.2]) < min(off[0.0])


def test_a_central_crop_stands_in_where_wanted() -> None:
    (face,), failures = cutter_for(no_face="central_crop")(items(BLANK))
    assert not failures
    assert face.probability == 0
    assert np.isnan(face.keypoints).all()
    assert face.pixels.min() == 90


def test_keypoints_of_aligned_faces_lie_near_the_template(portraits: list[np.ndarray]) -> None:
    faces, _ = cutter_for()(items(*portraits))
    larger = [np.kron(face.pixels, np.ones((2, 2, 1), np.uint8)) for face in faces]
    again, failures = cutter_for(aligned=True)(items(*larger))
    assert not failures
    distances = []
    for face, before in zip(again, faces, strict=True):
        forward = similarity(before.keypoints, TEMPLATE)
        expected = before.keypoints @ forward[:, :2].T + forward[:, 2]
        distances.append(np.linalg.norm((face.keypoints - 0.5) / 2 - expected, axis=1).mean())
        assert face.probability > 0.7
    assert np.median(distances) < 3  # one of these pictures ends close to the face


@pytest.mark.parametrize("side", [112, 224])
def test_aligned_faces_are_taken_as_they_are(side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    (face,), _ = cutter_for(aligned=True)(items(pixels))
    assert face.pixels.shape == (112, 112, 3)
    assert face.box.tolist() == [0, 0, side, side]
    if side == 112:
        np.testing.assert_array_equal(face.pixels, pixels)
