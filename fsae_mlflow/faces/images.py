"""Encoded picture → upright 8-bit RGB array, or the reason why it cannot be decoded."""

import io
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

WHITE = (255, 255, 255)
# Formats that Pillow decodes itself; JPEG includes MPO. Others start programs (EPS starts Ghostscript).
FORMATS = frozenset(
    ["AVIF", "BMP", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "SGI", "TGA", "TIFF", "WEBP"]
)


class UnreadableImageError(Exception):
    """A picture that cannot be decoded; the message is one sentence with the reason."""


def decode(content: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a picture to RGB, 0…255, upright according to its EXIF orientation; the array may be read-only.

    Of an animation the first frame is taken. Transparent pixels become white. 16-bit and floating-point gray values are
    scaled to 0…255, not clipped.

    Raises: UnreadableImageError with the reason.
    """
    if not content:
        raise UnreadableImageError("The file is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_formats()) as picture:
                if 0 in picture.size:
                    raise UnreadableImageError(f"The picture has no pixels ({picture.width} x {picture.height}).")
                picture.load()
                return np.asarray(_rgb(_upright(picture)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UnreadableImageError(
            f"The picture declares more than {limit:.0f} megapixels and may be a decompression bomb."
        ) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(
            "The file is not a picture in a format or pixel layout that fsae_mlflow reads."
        ) from None
    except MemoryError:
        raise UnreadableImageError("The picture does not fit into memory.") from None
    except Exception as error:  # Pillow's plugins raise many kinds of errors on broken files
        if isinstance(error, UnreadableImageError):
            raise
        if "truncated" in str(error) or "bytes not processed" in str(error) or isinstance(error, EOFError):
            raise UnreadableImageError("The file ends too early: the picture is truncated.") from None
        raise UnreadableImageError(f"The picture is broken ({error}).") from None


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this version of Pillow knows, in its own order."""
    Image.init()
    return [name for name in Image.ID if name in FORMATS and name in Image.OPEN]


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block can raise any error; the pixels are still good
        return picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in TO_RGB:
        return TO_RGB[picture.mode](picture)
    if picture.mode.startswith("I;16"):
        return _sixteen_bit(picture)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGB", picture.size, WHITE)
        ground.paste(picture, mask=picture.getchannel("A"))
        return ground
    return picture.convert("RGB")


def _sixteen_bit(picture: Image.Image) -> Image.Image:
    """0…65535 → 0…255; values outside (32-bit files) are scaled by their minimum and maximum instead."""
    values = np.asarray(picture).astype(np.float64)
    low, high = (0.0, 65535.0) if values.min() >= 0 and values.max() <= 65535 else (values.min(), values.max())
    return _gray((values - low) / max(high - low, 1e-9))


def _floating_point(picture: Image.Image) -> Image.Image:
    """0…1 or 0…255 as they are; other values are scaled by their minimum and maximum."""
    values = np.nan_to_num(np.asarray(picture).astype(np.float64))
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:
        return _gray(values)
    if low >= 0 and high <= 255:
        return _gray(values / 255)
    return _gray((values - low) / max(high - low, 1e-9))


def _gray(unit: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(unit * 255).astype(np.uint8)).convert("RGB")


def _lab(picture: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    assert converted is not None  # None only when it converts in place
    return converted


TO_RGB: dict[str, Callable[[Image.Image], Image.Image]] = {"I": _sixteen_bit, "F": _floating_point, "LAB": _lab}


def encoded_jpeg(pixels: UInt8[np.ndarray, "height width 3"], quality: int) -> bytes:
    """A picture as JPEG without chroma subsampling."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", quality=quality, subsampling=0)
    return content.getvalue()
