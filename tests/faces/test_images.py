"""Every way a picture can be stored comes out as upright RGB, or as a reason."""

import io
import struct

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageCms

from fsae_mlflow.faces.images import UnreadableImageError, decode

RAMP = np.linspace(0, 255, 16 * 24).reshape(16, 24).round().astype(np.uint8)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(orientation: int) -> None:
    upright = np.zeros((40, 24, 3), np.uint8)
    upright[:10, :, 0] = 255  # red at the top
    upright[:, :6, 2] = 255  # blue at the left
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(np.ascontiguousarray(undo(upright))), "PNG", exif=exif)
    np.testing.assert_array_equal(decode(stored), upright)


def test_a_broken_exif_block_leaves_the_pixels_usable() -> None:
    content = encoded(Image.fromarray(RAMP), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decode(content).shape == (16, 24, 3)


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    wide = (RAMP.astype(np.uint16) * 257).astype(np.uint16)
    for content in (
        encoded(Image.fromarray(wide), "PNG"),
        encoded(Image.fromarray(wide), "TIFF"),
        b"P5\n24 16\n65535\n" + wide.astype(">u2").tobytes(),
    ):
        np.testing.assert_array_equal(decode(content)[..., 0], RAMP)


def test_floating_point_gray_is_scaled() -> None:
    for values in (RAMP / 255, RAMP.astype(float), RAMP * 1000.0 - 17):
        decoded = decode(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))
        np.testing.assert_allclose(decoded[..., 2], RAMP, atol=1)


def test_a_constant_picture_of_any_depth_is_no_error() -> None:
    for value in (np.full((4, 4), 100_000, np.int32), np.full((4, 4), -3.0, np.float32)):
        assert decode(encoded(Image.fromarray(value), "TIFF")).shape == (4, 4, 3)


def test_transparent_pixels_lie_on_white() -> None:
    colors = np.zeros((4, 4, 4), np.uint8)
    colors[:2] = (10, 20, 30, 255)
    expected = np.full((4, 4, 3), 255)
    expected[:2] = (10, 20, 30)
    rgba = Image.fromarray(colors)
    np.testing.assert_array_equal(decode(encoded(rgba)), expected)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 99, 99, 99])
    palette.paste(0, (0, 0, 4, 2))
    np.testing.assert_array_equal(decode(encoded(palette, transparency=1)), expected)
    np.testing.assert_array_equal(decode(encoded(rgba.convert("LA")))[2:], 255)


def test_one_bit_cmyk_and_lab_come_out_in_the_right_colors() -> None:
    assert set(np.unique(decode(encoded(Image.fromarray(RAMP > 127))))) == {0, 255}
    red = Image.new("RGB", (16, 16), (200, 40, 30))
    np.testing.assert_allclose(
        decode(encoded(red.convert("CMYK"), "JPEG", quality=95)).mean((0, 1)), (200, 40, 30), atol=6
    )
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    np.testing.assert_allclose(decode(encoded(lab, "TIFF")).mean((0, 1)), (200, 40, 30), atol=4)


def bomb() -> bytes:
    """A GIF of one pixel that says it has 3.6 billion."""
    small = encoded(Image.new("L", (1, 1)), "GIF")
    return small[:6] + struct.pack("<HH", 60_000, 60_000) + small[10:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "not a picture"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:-900], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:-900], "truncated"),
        (bomb(), "bomb"),
    ],
    ids=["empty", "text", "truncated-jpeg", "truncated-png", "bomb"],
)
def test_what_cannot_be_read_has_a_reason(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        decode(content)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def test_no_picture_starts_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file called .jpg ran in Ghostscript."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: started.append(given))
    assert Image.open(io.BytesIO(POSTSCRIPT)).format == "EPS"
    with pytest.raises(UnreadableImageError, match="not a picture in a format"):
        decode(POSTSCRIPT)
    assert not started


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM"])
def test_formats_that_are_read_whatever_the_name(kind: str) -> None:
    options = {"sizes": [(24, 16)]} if kind == "ICO" else {}
    assert decode(encoded(Image.fromarray(RAMP).convert("RGB"), kind, **options)).shape == (16, 24, 3)
