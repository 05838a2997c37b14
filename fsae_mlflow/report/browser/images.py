"""The tables that visualize writes, by their names, and what the browser shows of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fsae_mlflow.errors import UserError
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.parameters import fingerprint

IMAGES, DIALS, KEY = "images.parquet", "dials.parquet", b"fsae_mlflow"


@dataclass(frozen=True, kw_only=True)
class FeatureImages:
    """The optimized images of single features, rows of images.parquet, and their dials, rows of dials.parquet."""

    folder: Path
    images: Mapping[int, list[dict[str, Any]]]
    dials: Mapping[int, list[dict[str, Any]]]
    rule: str
    digest: str

    def picture(self, file: str) -> Image.Image:
        """A picture of the folder."""
        with Image.open(self.folder / file) as picture:
            return picture.convert("RGB")


NO_IMAGES = FeatureImages(folder=Path(), images={}, dials={}, rule="", digest="")


def read_images(folder: Path, *, sae: str, force: bool = False) -> FeatureImages:
    """What visualize wrote to `folder`, if it is of the SAE with the digest `sae`, or `force` is set.

    Raises: UserError where there are no images, and for those of another SAE.
    """
    try:
        table = pq.read_table(folder / IMAGES)
        about = json.loads((table.schema.metadata or {})[KEY])
        dials = pq.read_table(folder / DIALS).to_pylist() if (folder / DIALS).is_file() else []
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise UserError(
            f"images: {folder} holds no readable {IMAGES} ({error}); make it with visualize, or give images=none."
        ) from error
    if about.get("sae") != sae and not force:
        raise UserError(
            f"images: they are of the SAE {about.get('sae')}, but this run uses {sae}; run visualize with this SAE, or "
            "give images=none."
        )
    return FeatureImages(
        folder=folder,
        images=_by_feature(table.to_pylist()),
        dials=_by_feature(dials),
        rule=str(about.get("rule", "")),
        digest=images_digest(folder),
    )


def images_digest(folder: Path) -> str:
    """A short hash of the tables that visualize wrote to `folder`."""
    return fingerprint({name: sha256(folder / name) for name in (IMAGES, DIALS) if (folder / name).is_file()})


def mostly_confirmed(confirmed: Sequence[bool]) -> bool:
    """Whether a feature is confirmed by its images: more than half of them are."""
    return 2 * sum(confirmed) > len(confirmed)


def _by_feature(rows: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["target"] == str(row["feature"]):
            found.setdefault(row["feature"], []).append(row)
    return found
