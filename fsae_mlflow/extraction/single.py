"""What made a template set, used again: its recognizer, and one picture → its aligned face and template."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.writing import embed, face_cutter
from fsae_mlflow.faces.aligned import FacePixels
from fsae_mlflow.faces.decoding import read
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.templates.set import TemplateSet


def recognizer_of(templates: TemplateSet, *, name: str = "", card: str = "") -> Recognizer:
    """The recognizer that made a template set; a name or a card that is given takes the place of the set's.

    Raises: UserError as `load_recognizer`.
    """
    made_with = templates.metadata.get("settings", {})
    return load_recognizer(name or made_with.get("recognizer", ""), card=card or made_with.get("recognizer_card", ""))


class PictureExtractor:
    """One picture → its aligned face and template, with the settings that a template set stores (`made_with`).

    Of several faces it takes the one that these settings say; where they say all, the most central one. It never takes
    a central crop in place of a face.
    """

    def __init__(self, made_with: Mapping[str, Any], recognizer: Recognizer) -> None:
        known = {field.name for field in dataclasses.fields(ExtractSettings)}
        settings = ExtractSettings(**{name: value for name, value in made_with.items() if name in known})
        self.settings = dataclasses.replace(
            settings, face="central" if settings.face == "all" else settings.face, no_face="record"
        )
        self.recognizer = recognizer
        self.cut = face_cutter(self.settings, device=recognizer.mean.device)

    def __call__(self, picture: Picture) -> tuple[FacePixels, Float32[np.ndarray, " d"]]:
        """The aligned face and its template.

        Raises: UserError for a picture that cannot be read, or without a face.
        """
        faces, failures = self.cut([read(picture)])
        if failures:
            raise UserError(
                f"{picture.image_id} gives no template: {failures[0][1]} Give another picture of this face."
            )
        face = faces[0].pixels
        # A copy: Pillow's pixels are read-only, of which torch warns.
        return face, embed(face[None].copy(), self.recognizer, flip=self.settings.flip)[0]
