import numpy as np
import pytest

from fsae_mlflow.faces.detection.keypoints import NO_FACES, Faces


def faces(*rows: tuple[float, float, float, float, float]) -> Faces:
    """Left, top, side, side, probability."""
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _ in rows], np.float32)
    return Faces(boxes, np.zeros((len(rows), 5, 2), np.float32), np.array([row[4] for row in rows], np.float32))


THREE = faces((60, 10, 40, 40, 0.99), (5, 5, 60, 60, 0.95), (40, 45, 20, 20, 0.97))


@pytest.mark.parametrize(
    ("choice", "expected"), [("largest", [1]), ("central", [2]), ("most_confident", [0]), ("all", [1, 2, 0])]
)
def test_choice_among_several(choice: str, expected: list[int]) -> None:
    assert THREE.chosen(choice, 100, 110).tolist() == expected


def test_a_doubtful_face_gives_way_to_a_sure_one() -> None:
    hand_in_the_middle = faces((45, 45, 30, 30, 0.75), (0, 0, 20, 20, 0.98))
    assert hand_in_the_middle.chosen("central", 110, 110).tolist() == [1]
    assert hand_in_the_middle.chosen("largest", 110, 110).tolist() == [1]
    assert faces((45, 45, 30, 30, 0.75)).chosen("central", 110, 110).tolist() == [0]


def test_no_face_and_unknown_choices() -> None:
    assert NO_FACES.chosen("central", 100, 100).tolist() == []
    with pytest.raises(ValueError, match="largest, central, most_confident or all; it is 'middle'"):
        THREE.chosen("middle", 100, 100)
