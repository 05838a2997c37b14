"""Pictures in tar files as WebDataset writes them: the files of a sample have the same name up to the first dot."""

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import PurePosixPath

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.pictures import PICTURE_SUFFIXES, Picture, identity_of
from fsae_mlflow.faces.storage import Location

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
LARGEST_LABEL = 1 << 20


class TarShards:
    """One .tar, or several given by wildcards (faces-*.tar) or a range (faces-{000..009}.tar).

    The image id is the picture's name in the tar. The identity is the text of the sample's .cls, or `identity` in its
    .json, or the folder in the picture's name. Pictures are read in place, so the tars must not be compressed.

    Raises: UserError if there is none, or one is not a tar file.
    """

    attributes: Mapping[str, str] = {}

    def __init__(self, faces: str) -> None:
        self.name = faces
        self.shards: list[Location] = []
        for shard in _shards(faces):  # one by one, so that a range that is too long ends at its first missing file
            if shard.kind != "file":
                raise UserError(f"faces: there is no file {shard}; give .tar files that exist.")
            self.shards.append(shard)
        if not self.shards:
            raise UserError(
                f"faces: no file matches {faces}; give a .tar, wildcards (faces-*.tar) or a range ({{000..009}})."
            )

    def __iter__(self) -> Iterator[Picture]:
        for shard in self.shards:
            try:
                with shard.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
                    members = (member for member in tar if member.isfile())
                    for _, sample in groupby(members, key=lambda member: _key(member.name)):
                        yield from _pictures(tar, list(sample), shard)
            except tarfile.TarError as error:
                raise UserError(
                    f"faces: {shard} is not an uncompressed tar file ({error}); unpack or repack it."
                ) from error


def _key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.', 1)[0]}"


def _pictures(tar: tarfile.TarFile, sample: list[tarfile.TarInfo], shard: Location) -> Iterator[Picture]:
    named = _identity(tar, sample)
    tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every header in memory
    for member in sample:
        if PurePosixPath(member.name).suffix.lower() in PICTURE_SUFFIXES:
            identity = named or identity_of(member.name)
            yield Picture(member.name, identity, shard, offset=member.offset_data, length=member.size)


def _identity(tar: tarfile.TarFile, sample: list[tarfile.TarInfo]) -> str:
    for member in sample:
        suffix = PurePosixPath(member.name).suffix.lower()
        if suffix in (".cls", ".json") and member.size <= LARGEST_LABEL:
            content = tar.extractfile(member)
            text = content.read().decode("utf-8", "replace").strip() if content else ""
            if suffix == ".cls":
                return text
            try:
                label = json.loads(text)
            except json.JSONDecodeError as error:
                raise UserError(f"faces: {member.name} in {tar.name} is not JSON ({error}).") from error
            if isinstance(label, dict) and "identity" in label:
                return str(label["identity"])
    return ""


def _shards(faces: str) -> Iterator[Location]:
    if found := RANGE.search(faces):
        first, last = found.groups()
        for number in range(int(first), int(last) + 1):
            yield from _shards(f"{faces[: found.start()]}{number:0{len(first)}d}{faces[found.end() :]}")
        return
    folder, _, pattern = faces.rpartition("/")
    if "*" not in pattern:
        yield Location.of(faces)
        return
    parent = Location.of(folder or ("/" if faces.startswith("/") else "."))
    if parent.kind == "folder":
        yield from (place for place, kind, _ in parent.entries() if kind == "file" and fnmatchcase(place.name, pattern))
