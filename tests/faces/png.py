"""Small encoded pictures for tests."""

import io

from PIL import Image


def png(value: int) -> bytes:
    """A 4 x 3 picture whose red channel has this value everywhere."""
    content = io.BytesIO()
    Image.new("RGB", (4, 3), (value, 0, 0)).save(content, "PNG")
    return content.getvalue()
