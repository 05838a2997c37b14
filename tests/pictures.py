"""Small encoded pictures for tests."""

import io
from typing import Any

from PIL import Image


def encoded(picture: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    """The picture as a file of this format."""
    content = io.BytesIO()
    picture.save(content, kind, **how)
    return content.getvalue()


def png(value: int) -> bytes:
    """A 4 x 3 picture whose red channel has this value everywhere."""
    return encoded(Image.new("RGB", (4, 3), (value, 0, 0)))
