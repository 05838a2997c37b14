"""An optimized image on disk: an 8-bit PNG that carries the record of its optimization, so that a stage that was
stopped goes on with the images that are missing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from fsae_mlflow.faces.aligned import to_pixels
from fsae_mlflow.files.atomic import atomic_write

KEY = "fsae_mlflow"
CAPTION = 17
"""Height, in pixels, of the words under an image of a contact sheet."""


def save_picture(picture: Image.Image, path: Path, record: Any) -> Path:
    """Write a picture as PNG, with a record that JSON can hold."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, json.dumps(record))
    with atomic_write(path) as temporary:
        picture.save(temporary, "PNG", pnginfo=info)
    return path


def picture_of(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """An image (RGB, 0…1) with 8 bits."""
    return Image.fromarray(to_pixels(image[None])[0])


def strip_of(images: Float[Tensor, "n 3 h w"]) -> Image.Image:
    """Images side by side, with 8 bits."""
    return picture_of(images.permute(1, 2, 0, 3).flatten(2))


def contact_sheet(images: Float[Tensor, "n 3 h w"], words: Sequence[str], *, columns: int = 8) -> Image.Image:
    """Images in rows, with 8 bits, on white, each with its words under it."""
    n, _, height, width = images.shape
    sheet = Image.new("RGB", (min(n, columns) * width, -(-n // columns) * (height + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION - 5)
    for place, (image, text) in enumerate(zip(images, words, strict=True)):
        left, top = place % columns * width, place // columns * (height + CAPTION)
        sheet.paste(picture_of(image), (left, top))
        draw.text((left + width / 2, top + height + CAPTION / 2), text, "black", font, anchor="mm")
    return sheet


def read_record(path: Path) -> Any:
    """The record of a picture that `save_picture` wrote; None where there is none or it cannot be read."""
    try:
        with Image.open(path) as file:
            file.load()
            return json.loads(file.info[KEY])
    except (OSError, KeyError, ValueError, SyntaxError):
        return None


def missing(paths: Sequence[Path], *, made: str) -> list[Path]:
    """The paths without a picture whose record says that it was `made` in this way."""
    return [path for path in paths if (read_record(path) or {}).get("made") != made]
