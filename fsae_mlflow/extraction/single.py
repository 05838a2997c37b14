"""What made a template set, used again: its recognizer, and one picture file → its aligned face and template."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.writing import embed, face_cutter
from fsae_mlflow.faces.aligned import FacePixels
from fsae_mlflow.faces.decoding import read
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.storage import Location
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.templates.set import TemplateSet


def recognizer_of(templates: TemplateSet, *, name: str = "", card: str = "") -> Recognizer:
    """The recognizer that made a template set; a name or a card that is given takes the place of the set's.

    Raises: UserError as `load_recognizer`.
    """
    made_with = templates.metadata.get("settings", {})
    return load_recognizer(name or made_with.get("recognizer", ""), card=card or made_with.get("recognizer_card", ""))


def extract_one(
    path: Path, made_with: Mapping[str, Any], recognizer: Recognizer
) -> tuple[FacePixels, Float32[np.ndarray, " d"]]:
    """The aligned face of a picture and its template, with the settings that a template set stores (`made_with`).

    Of several faces it takes the one that these settings say; where they say all, the most central one. It never takes
    a central crop in place of a face.

    Raises: UserError for a picture that cannot be read, or without a face.
    """
    known = {field.name for field in dataclasses.fields(ExtractSettings)}
    settings = ExtractSettings(**{name: value for name, value in made_with.items() if name in known})
    settings = dataclasses.replace(
        settings, face="central" if settings.face == "all" else settings.face, no_face="record"
    )
    picture = read(Picture(str(path), path.stem, Location.of(str(path))))
    faces, failures = face_cutter(settings, device=recognizer.mean.device)([picture])
    if failures:
        raise UserError(f"{path} gives no template: {failures[0][1]} Give another picture of this face.")
    face = faces[0].pixels
    return face, embed(face[None], recognizer, flip=settings.flip)[0]
