"""What a picture and a source of pictures are; the kinds of source are in `sources/`."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fsae_mlflow.faces.storage import Location

JPEG, NETPBM, TIFF = (".jpg", ".jpeg", ".jpe", ".jfif"), (".pgm", ".ppm", ".pbm", ".pnm"), (".tif", ".tiff")
PICTURE_SUFFIXES = frozenset([*JPEG, *NETPBM, *TIFF, ".png", ".bmp", ".gif", ".webp", ".jp2", ".avif"])


@dataclass(frozen=True)
class Picture:
    """One encoded picture: its ids and where its bytes are.

    The bytes are `content` if it is given, else `length` bytes (-1: to the end) of the file `location` from `offset`.
    `attributes` are the values of the source's extra columns, None where unknown.
    """

    image_id: str
    identity: str
    location: Location
    offset: int = 0
    length: int = -1
    attributes: tuple[Any, ...] = ()
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """The encoded picture.

        Raises: OSError if it cannot be read.
        """
        return self.location.read(self.offset, self.length) if self.content is None else self.content


@runtime_checkable
class Source(Protocol):
    """Pictures in an order that is the same every time, read one by one and any number of times."""

    name: str
    attributes: Mapping[str, str]
    """The columns of `Picture.attributes` in their order, each "int", "float", "bool" or "string"."""

    def __iter__(self) -> Iterator[Picture]: ...


@dataclass(frozen=True)
class Inventory:
    """The number of pictures in a source, and a digest of their ids, sizes and attributes."""

    n_pictures: int
    digest: str


def take_inventory(source: Source) -> Inventory:
    """List a source once, without reading its pictures.

    Raises: ValueError if it has none.
    """
    n_pictures, content = 0, hashlib.sha256()
    for picture in source:
        n_pictures += 1
        length = picture.length if picture.content is None else len(picture.content)
        content.update(repr((picture.image_id, picture.identity, length, picture.attributes)).encode())
    if not n_pictures:
        raise ValueError(
            f"faces: {source.name} holds no picture (a file that ends in {', '.join(sorted(PICTURE_SUFFIXES))}); "
            "give a folder with one folder of pictures per identity, a list, a .bin or .tar shards."
        )
    return Inventory(n_pictures, content.hexdigest()[:16])


def identity_of(path: str) -> str:
    """The identity in a picture's path: the name of its folder, or its own name if there is no folder."""
    parts = [part for part in path.split("/") if part]
    return parts[-2] if len(parts) > 1 else parts[-1].rsplit(".", 1)[0]
