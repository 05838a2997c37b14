"""Contact sheets to check an extraction by eye: aligned faces, and the pictures that gave none."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.faces.decoding import read
from fsae_mlflow.faces.pictures import Source
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.templates.rows import evenly_spaced

N_TILES = 64
COLUMNS = 8
REJECTED_SIZE = 2 * FACE_SIZE  # room for the reason


def accepted(faces: Sequence[Image.Image], path: Path) -> Path | None:
    """Write aligned faces side by side; None if there are none."""
    return _sheet(faces, path) if faces else None


def rejected(source: Source, failures: Sequence[tuple[str, str]], path: Path) -> Path | None:
    """Write up to 64 pictures without a row, each with its reason; None if there are none."""
    if not failures:
        return None
    wanted = defaultdict[str, list[str]](list)  # several pictures may have the same image id
    for index in evenly_spaced(len(failures), most=N_TILES):
        wanted[failures[index][0]].append(failures[index][1])
    tiles = []
    for picture in source:
        if reasons := wanted.get(picture.image_id):
            tiles.append(_labeled(read(picture).pixels, f"{picture.image_id}\n{reasons.pop(0)}"))
    return _sheet(tiles, path) if tiles else None


def _labeled(pixels: UInt8[np.ndarray, "height width 3"] | None, text: str) -> Image.Image:
    tile = Image.new("RGB", (REJECTED_SIZE, REJECTED_SIZE), "white")
    if pixels is not None:
        thumbnail = Image.fromarray(pixels)
        thumbnail.thumbnail((REJECTED_SIZE, REJECTED_SIZE - 60))
        tile.paste(thumbnail, ((REJECTED_SIZE - thumbnail.width) // 2, 0))
    lines = [line[start : start + 36] for line in text.split("\n") for start in range(0, len(line), 36)]
    ImageDraw.Draw(tile).multiline_text((2, REJECTED_SIZE - 58), "\n".join(lines[:5]), fill="black", spacing=1)
    return tile


def _sheet(tiles: Sequence[Image.Image], path: Path) -> Path:
    width, height = tiles[0].size
    columns = min(COLUMNS, len(tiles))
    sheet = Image.new("RGB", (columns * (width + 2), -(-len(tiles) // columns) * (height + 2)), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * (width + 2), number // columns * (height + 2)))
    with atomic_write(path) as temporary:
        sheet.save(
            temporary, "PNG", compress_level=1
        )  # the default, 6, takes four times as long for a file a tenth smaller
    return path
