"""What a picture and a source of pictures are; the kinds of source are in `sources/`."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol, runtime_checkable

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.storage import Location

JPEG, NETPBM, TIFF = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), (".pgm", ".ppm", ".pbm", ".pnm"), (".tif", ".tiff")
JPEG_2000, OLDER = (".jp2", ".j2k", ".j2c", ".jpx"), (".tga", ".psd", ".ico", ".icns", ".pcx", ".sgi")
PICTURE_SUFFIXES = frozenset([*JPEG, *NETPBM, *TIFF, *JPEG_2000, *OLDER, ".png", ".bmp", ".gif", ".webp", ".avif"])


@dataclass(frozen=True)
class Picture:
    """One encoded picture: its ids and where its bytes are.

    The bytes are `content` if it is given, else `length` bytes (-1: to the end) of the file `location` from `offset`.
    `attributes` are the values of the source's extra columns, None where unknown. `fault` says why a picture cannot be
    read, where its source knows that already.

    In the ids, what UTF-8 cannot hold (bytes of file names, NUL) is escaped.
    """

    image_id: str
    identity: str
    location: Location
    offset: int = 0
    length: int = -1
    attributes: tuple[Any, ...] = ()
    content: bytes | None = field(default=None, repr=False)
    fault: str = ""

    def __post_init__(self) -> None:
        for name in ("image_id", "identity"):
            object.__setattr__(self, name, escaped(getattr(self, name)))

    def read(self) -> bytes:
        """The encoded picture.

        Raises: OSError if it cannot be read.
        """
        return self.location.read(self.offset, self.length) if self.content is None else self.content


@runtime_checkable
class Source(Protocol):
    """Pictures in an order that is the same every time, read one by one and any number of times.

    A source may also have `passed_over`: after a pass, how many files it passed over because of their suffix.
    """

    name: str
    attributes: Mapping[str, str]
    """The columns of `Picture.attributes` in their order, each "int", "float", "bool" or "string"."""

    def __iter__(self) -> Iterator[Picture]: ...


@dataclass(frozen=True)
class Inventory:
    """The number of pictures in a source, and a digest of their ids, sizes and attributes.

    `files` is a digest of their files' sizes and modification times (in a bucket, of tar files only), or of their
    contents where the source has them; `stamped` says whether it has those of every file. `passed_over`: the number of
    other files by suffix.
    """

    n_pictures: int
    digest: str
    files: str = ""
    passed_over: Counter[str] = field(default_factory=Counter)
    stamped: bool = True


def take_inventory(source: Source) -> Inventory:
    """List a source once, without reading its pictures.

    Raises: UserError if it has none.
    """
    n_pictures, content, files = 0, hashlib.sha256(), hashlib.sha256()
    place, stamp, stamped = None, "", True
    for picture in source:
        n_pictures += 1
        length = picture.length if picture.content is None else len(picture.content)
        content.update(repr((picture.image_id, picture.identity, length, picture.attributes)).encode())
        if picture.content is not None:
            files.update(picture.content)
        elif picture.location != place:  # the pictures of a tar have one file
            place = picture.location
            stamp = "" if place.root and not picture.offset else place.stamp()  # in a bucket, one request a picture
            files.update(f"{stamp}\n".encode())
            stamped = stamped and bool(stamp)
    if not n_pictures:
        raise UserError(
            f"faces: {source.name} holds no picture (a file that ends in {', '.join(sorted(PICTURE_SUFFIXES))}); "
            "give a folder with one folder of pictures per identity, a list, a .bin or .tar shards."
        )
    passed_over = Counter[str](dict(sorted(getattr(source, "passed_over", {}).items())))
    return Inventory(n_pictures, content.hexdigest()[:16], files.hexdigest()[:16], passed_over, stamped)


def escaped(text: str) -> str:
    """A text with what UTF-8 cannot hold, and NUL, as backslash sequences."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def suffix_of(path: str) -> str:
    """The suffix of a file's name in lower case; empty if it has none."""
    return escaped(PurePosixPath(path).suffix.lower())


def identity_of(path: str) -> str:
    """The identity in a picture's path: the name of its folder, or its own name if there is no folder."""
    parts = [part for part in path.split("/") if part]
    return parts[-2] if len(parts) > 1 else "".join(parts).rsplit(".", 1)[0]
