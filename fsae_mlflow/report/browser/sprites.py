"""Many small pictures in few large ones, as WebP in data URLs, so that a page holds thousands of faces."""

import base64
import io
from collections.abc import Iterable, Iterator

from PIL import Image

COLUMNS, AT_ONCE = 16, 256
"""Pictures side by side in a sheet, and in all of it."""
QUALITY = 62


def sheets(pictures: Iterable[Image.Image], *, width: int, height: int, at_once: int = AT_ONCE) -> Iterator[str]:
    """Pictures of `width` × `height` pixels, 16 side by side and `at_once` in a sheet; each sheet as a data URL."""
    part: list[Image.Image] = []
    for picture in pictures:
        part.append(picture)
        if len(part) == at_once:
            yield _sheet(part, width, height)
            part = []
    if part:
        yield _sheet(part, width, height)


def _sheet(pictures: list[Image.Image], width: int, height: int) -> str:
    columns = min(COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height))
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (column * width, row * height))
    content = io.BytesIO()
    sheet.save(content, "WEBP", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
