"""Decoded pictures → aligned faces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from fsae_mlflow.faces import alignment
from fsae_mlflow.faces.decoding import Decoded
from fsae_mlflow.faces.keypoints import NO_FACES, Faces
from fsae_mlflow.faces.mtcnn import FaceFinder
from fsae_mlflow.faces.settings import ExtractSettings
from fsae_mlflow.faces.sources import Picture

CENTRAL_SHARE = 0.5  # of the shorter side: what the aligned faces of LFW's centred photographs cover
NO_FACE = "No face was found in the picture."


@dataclass(frozen=True)
class AlignedFace:
    """A face cut out of its picture; box and keypoints in pixels of the upright picture, nan where unknown.

    The probability is MTCNN's (0…1), 0 for a central crop, nan for a face given aligned.
    """

    picture: Picture
    number: int
    pixels: UInt8[np.ndarray, "112 112 3"]
    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "5 2"]
    probability: float
    source_width: int
    source_height: int

    @property
    def image_id(self) -> str:
        """The picture's id; the second, third, … face of a picture has #1, #2, … after it."""
        return f"{self.picture.image_id}#{self.number}" if self.number else self.picture.image_id


class FaceCutter:
    """Finds, chooses and aligns the faces of pictures as the settings say."""

    def __init__(self, settings: ExtractSettings, *, enlarge: int, device: torch.device) -> None:
        self.settings, self.enlarge = settings, enlarge
        self.find = (
            None
            if settings.aligned
            else FaceFinder(min_face=settings.min_face, min_face_share=settings.min_face_share, device=device)
        )

    def __call__(self, batch: Sequence[Decoded]) -> tuple[list[AlignedFace], list[tuple[str, str]]]:
        """The faces of a batch in its order, and (image id, reason) for each picture that gave none."""
        good = [item.pixels for item in batch if item.pixels is not None]
        found = iter(self.find([self._enlarged(pixels) for pixels in good]) if self.find else [NO_FACES] * len(good))
        faces: list[AlignedFace] = []
        failures: list[tuple[str, str]] = []
        for item in batch:
            if item.pixels is None:
                failures.append((item.picture.image_id, item.reason))
            elif some := list(self._cut(item.picture, item.pixels, next(found))):
                faces += some
            else:
                failures.append((item.picture.image_id, NO_FACE))
        return faces, failures

    def _cut(
        self, picture: Picture, pixels: UInt8[np.ndarray, "height width 3"], found: Faces
    ) -> Iterator[AlignedFace]:
        height, width = pixels.shape[:2]
        whole, unknown = np.array([0, 0, width, height], np.float32), np.full((5, 2), np.nan, np.float32)
        if self.settings.aligned:
            yield AlignedFace(picture, 0, alignment.fitted(pixels), whole, unknown, float("nan"), width, height)
            return
        chosen = found.chosen(self.settings.face, width * self.enlarge, height * self.enlarge)
        for number, index in enumerate(chosen):
            # pixel centres lie at integers: the first two of a picture enlarged twofold were at -0.25 and 0.25
            keypoints, box = (
                ((places[index] + 0.5) / self.enlarge - 0.5).astype(np.float32)
                for places in (found.keypoints, found.boxes)
            )
            face, probability = alignment.align(pixels, keypoints), float(found.probabilities[index])
            yield AlignedFace(picture, number, face, box, keypoints, probability, width, height)
        if not len(chosen) and self.settings.no_face == "central_crop":
            face = alignment.central_crop(pixels, CENTRAL_SHARE)
            yield AlignedFace(picture, 0, face, whole, unknown, 0.0, width, height)

    def _enlarged(self, pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "tall wide 3"]:
        if self.enlarge == 1:
            return pixels
        size = pixels.shape[1] * self.enlarge, pixels.shape[0] * self.enlarge
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
