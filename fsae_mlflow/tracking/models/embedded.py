"""The recognizer that a registered model carries so that it takes pictures: the folder `recognizer` beside its SAE.

about.json                             family, name of the weights' file, and the settings of the extraction
card.json                              the recognizer's card
weights.safetensors or weights.onnx
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.single import PictureExtractor
from fsae_mlflow.faces.pictures import Picture
from fsae_mlflow.faces.storage import Location
from fsae_mlflow.files.documents import read_object
from fsae_mlflow.provenance import Origin, require_same_recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.recognizers.tiny import WEIGHTS as TINY

if TYPE_CHECKING:
    from fsae_mlflow.templates.set import TemplateSet

ABOUT, CARD = "about.json", "card.json"


@dataclass(frozen=True, kw_only=True)
class EmbeddableRecognizer:
    """A recognizer in one file without pickle, and the settings with which it made a template set."""

    family: str
    weights: Path
    card: RecognizerCard
    made_with: dict[str, Any]

    @classmethod
    def of(cls, templates: "TemplateSet") -> "EmbeddableRecognizer":
        """The recognizer of a template set.

        Raises: UserError where it is not one file of safetensors or ONNX, cannot be loaded, or did not make the set.
        """
        made_with = templates.metadata.get("settings", {})
        name = made_with.get("recognizer", "")
        family, _, path = ("student", "", str(TINY)) if name == "tiny" else name.partition(":")
        if family not in ("student", "onnx"):
            raise UserError(
                f"embed_recognizer takes the recognizers tiny, student:… and onnx:…, whose weights are one file "
                f"without pickle; these templates are of {name or 'an unknown one'!r}: leave embed_recognizer out."
            )
        card = str(TINY.with_suffix(".json")) if name == "tiny" else made_with.get("recognizer_card", "")
        recognizer = load_recognizer(f"{family}:{path}", card=card, parameter="embed_recognizer: recognizer")
        advice = "put the weights that made the templates back, or leave embed_recognizer out"
        require_same_recognizer(templates.origin, recognizer.origin, force=False, advice=advice)
        if family == "onnx" and _in_several_files(path):
            raise UserError(f"embed_recognizer: {path} has its weights in files beside it; export it as one file.")
        return cls(family=family, weights=Path(path), card=recognizer.card, made_with=made_with)

    def write(self, folder: Path) -> Path:
        """Write it to the new folder `folder`, in the place of what is there; the folder."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        name = f"weights{'.onnx' if self.family == 'onnx' else '.safetensors'}"
        shutil.copy(self.weights, folder / name)
        self.card.write(folder / CARD)
        about = {"family": self.family, "weights": name, "made_with": self.made_with}
        (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
        return folder


class EmbeddedRecognizer:
    """Pictures → templates, as the template set was made."""

    def __init__(self, folder: Path) -> None:
        """Of what `EmbeddableRecognizer.write` wrote to `folder`.

        Raises: UserError for damaged files.
        """
        about = read_object(folder / ABOUT, "Embedded recognizer", remedy="register the model again")
        recognizer = load_recognizer(f"{about['family']}:{folder / about['weights']}", card=str(folder / CARD))
        self.extract = PictureExtractor(about["made_with"], recognizer)

    def templates(self, pictures: Sequence[bytes]) -> Float[Tensor, "n d"]:
        """A template for each encoded picture.

        Raises: UserError naming the first picture that cannot be read or shows no face.
        """
        named = (Picture(f"Picture {n}", "", Location(""), content=one) for n, one in enumerate(pictures))
        return torch.from_numpy(np.stack([self.extract(picture)[1] for picture in named]))


def digest_of(folder: Path) -> str:
    """The digest of the recognizer that `EmbeddableRecognizer.write` wrote to `folder`."""
    return Origin.of("", asdict(RecognizerCard.from_json(folder / CARD))).digest


def _in_several_files(path: str) -> bool:
    import onnx
    from onnx.external_data_helper import uses_external_data

    return any(map(uses_external_data, onnx.load(path, load_external_data=False).graph.initializer))
