"""The faces of an explanation: those that a user names, or pairs that show what the recognizer decides."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.explanation.contributions import Contributions
from fsae_mlflow.extraction.single import PictureExtractor
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.storage import Location
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.pairs import RowPairs, find_row


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face: its name, its identity where it is known, its aligned picture and its raw template."""

    name: str
    identity: str | None
    picture: Image.Image
    template: Float32[np.ndarray, " d_in"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A pair to explain: its name, its place among all pairs, its faces, and whether they show one person, if known."""

    name: str
    pair: int
    faces: tuple[Face, Face]
    genuine: bool | None = None


def find_face(name: str, templates: TemplateSet, recognizer: Recognizer | None) -> Face:
    """The face that `name` means: an image id of the set, or a picture file, which becomes a template as the set's did.

    Raises: UserError where it is neither, for a picture without a face, and for a picture without the `recognizer`.
    """
    row = find_row(name, templates)
    if row is not None:
        return _face_of_row(templates, row)
    if not Path(name).is_file():
        nearest = ", ".join(get_close_matches(name, templates.image_ids, n=3, cutoff=0.5))
        raise UserError(
            f"{name!r} is neither an image of {templates.folder} nor a picture file; "
            + (f"the nearest images are {nearest}." if nearest else "give an image id or the path of a picture.")
        )
    if recognizer is None:
        raise UserError(
            f"{name} is a picture without a template, which only the recognizer can make; give the recognizer."
        )
    extract = PictureExtractor(templates.metadata.get("settings", {}), recognizer)
    pixels, template = extract(Picture(name, "", Location.of(name)))
    return Face(name=Path(name).name, identity=None, picture=Image.fromarray(pixels), template=template)


def telling_pairs(found: Contributions, pairs: RowPairs, templates: TemplateSet) -> list[Chosen]:
    """Of genuine and of impostor pairs, the one of median similarity and the hardest: the least similar genuine pair,
    and the most similar impostor pair.
    """
    chosen = []
    for kind, mask, hardest in (("genuine", pairs.genuine, 0), ("impostor", ~pairs.genuine, -1)):
        members = np.flatnonzero(mask)
        members = members[np.argsort(found.original[members], kind="stable")]
        for name, pair in (("typical", members[len(members) // 2]), ("hardest", members[hardest])):
            faces = [_face_of_row(templates, int(side[pair])) for side in (pairs.first, pairs.second)]
            chosen.append(
                Chosen(name=f"{kind}-{name}", pair=int(pair), faces=(faces[0], faces[1]), genuine=kind == "genuine")
            )
    return chosen


def _face_of_row(templates: TemplateSet, row: int) -> Face:
    at = np.array([row])
    return Face(
        name=templates.image_ids[row],
        identity=str(templates.identities[row]),
        picture=templates.faces(at)[0],
        template=templates.templates_of(at)[0],
    )
