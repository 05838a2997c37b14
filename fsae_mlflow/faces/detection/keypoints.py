"""The faces found in one picture: boxes, keypoints, probabilities, and which of them to take."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CONFIDENT = 0.9


@dataclass(frozen=True)
class Faces:
    """The faces found in one picture, in its pixels (centers at integers), the most probable first.

    Keypoints: left eye, right eye, nose, left and right mouth corner as seen in the image. Probabilities 0…1.
    """

    boxes: Float[np.ndarray, "n 4"]
    keypoints: Float[np.ndarray, "n 5 2"]
    probabilities: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.probabilities)

    def chosen(self, choice: str, width: int, height: int) -> Int[np.ndarray, " m"]:
        """Which faces to take from a picture of this size: largest, central, most_confident, or all from left to right.

        The largest and the most central are chosen among faces of probability 0.9 or more, if there are any, because
        less probable ones are often not faces.

        Raises: ValueError for another choice.
        """
        if not len(self):
            return np.empty(0, np.int64)
        extent = self.boxes[:, 2:] - self.boxes[:, :2]
        middle = (self.boxes[:, 2:] + self.boxes[:, :2]) / 2
        if choice == "all":
            return np.lexsort((middle[:, 1], middle[:, 0]))
        offset = np.square(middle - ((width - 1) / 2, (height - 1) / 2)).sum(axis=1)
        ranks = {"largest": -extent.prod(axis=1), "central": offset, "most_confident": -self.probabilities}
        if choice not in ranks:
            raise ValueError(f"face must be largest, central, most_confident or all; it is {choice!r}.")
        doubtful = self.probabilities < min(CONFIDENT, self.probabilities.max())
        return np.lexsort((ranks[choice], doubtful))[:1]


NO_FACES = Faces(np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32))
