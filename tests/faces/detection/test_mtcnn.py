"""Our way of driving MTCNN finds what facenet-pytorch's own finds."""

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from torchvision.ops import batched_nms

from fsae_mlflow.faces.detection.keypoints import Faces
from fsae_mlflow.faces.detection.mtcnn import FaceFinder, grouped_nms

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(min_face=20.0, min_face_share=0.0, device=CPU)


def assert_same(found: Faces, expected: Faces) -> None:
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.01)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)


def test_the_faces_are_those_of_facenet_pytorch(finder: FaceFinder, portraits: list[np.ndarray]) -> None:
    pair = np.concatenate(portraits[:2], axis=1)
    peer = MTCNN(min_face_size=20, keep_all=True, select_largest=False)
    for pictures in ([pair], portraits[:6]):
        boxes, probabilities, keypoints = peer.detect(np.stack(pictures), landmarks=True)
        for found, *parts in zip(finder(pictures), boxes, keypoints, probabilities, strict=True):
            expected = Faces(*(np.asarray(part, np.float32) for part in parts))
            order = np.argsort(-expected.probabilities, kind="stable")
            assert_same(found, Faces(expected.boxes[order], expected.keypoints[order], expected.probabilities[order]))
    assert len(finder([pair])[0]) == 2


def test_company_makes_no_difference(finder: FaceFinder, portraits: list[np.ndarray]) -> None:
    mixed = [
        portraits[0],
        portraits[1][:200],
        portraits[2],
        np.full((150, 90, 3), 128, np.uint8),
        portraits[3][:, :170],
    ]
    together = finder(mixed)
    assert [len(faces) for faces in together] == [1, 1, 1, 0, 1]
    for picture, faces in zip(mixed, together, strict=True):
        assert_same(faces, finder([picture])[0])


def test_pictures_without_room_for_a_face_have_none(finder: FaceFinder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (18, 300, 3), dtype=np.uint8)
    assert [len(faces) for faces in finder([noise, noise[:1, :1], np.zeros((64, 64, 3), np.uint8)])] == [0, 0, 0]
    assert finder([]) == []


def test_faces_smaller_than_sought_are_not_found(portraits: list[np.ndarray]) -> None:
    canvas = np.full((1000, 1000, 3), 128, np.uint8)
    canvas[300:524, 300:484] = portraits[0]
    assert len(FaceFinder(min_face=20.0, min_face_share=0.08, device=CPU)([canvas])[0]) == 1
    assert len(FaceFinder(min_face=20.0, min_face_share=0.8, device=CPU)([canvas])[0]) == 0
    assert len(FaceFinder(min_face=400.0, min_face_share=0.0, device=CPU)([canvas])[0]) == 0


def test_suppression_keeps_what_torchvision_keeps() -> None:
    random = torch.Generator().manual_seed(0)
    corners = torch.randint(0, 40, (500, 2), generator=random).float()
    extents = torch.randint(0, 20, (500, 2), generator=random).float()  # some have no area
    boxes = torch.cat([corners, corners + extents, torch.rand(500, 1, generator=random)], dim=1)
    groups = torch.randint(0, 3, (500,), generator=random)
    kept = grouped_nms(boxes, groups, 0.5)
    assert 3 < len(kept) < 450
    assert sorted(kept.tolist()) == sorted(batched_nms(boxes[:, :4], boxes[:, 4], groups, 0.5).tolist())
