"""Pictures in tar files as WebDataset writes them: the files of a sample have the same name up to the first dot."""

import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import groupby

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.pictures import PICTURE_SUFFIXES, Picture, identity_of, suffix_of
from fsae_mlflow.faces.storage import Location
from fsae_mlflow.files.documents import parse_json

RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
LABELS = (".cls", ".json")
LARGEST_LABEL = LARGEST_PADDING = 1 << 20
LINK = "The tar holds a link or a device instead of the picture; repack it with tar --dereference --hard-dereference."


class TarShards:
    """One .tar, or several given by wildcards (faces-*.tar) or a range (faces-{000..009}.tar).

    The image id is the picture's name in the tar. The identity is the text of the sample's .cls, or `identity` in its
    .json, or the folder in the picture's name. Pictures are read in place, so the tars must not be compressed. A link
    is given as a picture that cannot be read.

    Raises: UserError if there is none, or one is not a tar file or is cut.
    """

    attributes: Mapping[str, str] = {}

    def __init__(self, faces: str) -> None:
        self.name = faces
        self.passed_over: Counter[str] = Counter()
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
        self.passed_over.clear()
        for shard in self.shards:
            n_members = 0

            def members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
                nonlocal n_members
                for member in tar:
                    n_members += 1
                    if not member.isdir():
                        yield member

            try:
                with shard.open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
                    for _, sample in groupby(members(tar), key=lambda member: _key(member.name)):
                        yield from self._pictures(tar, list(sample), shard)
                    file.seek(tar.offset)
                    end = file.read(LARGEST_PADDING)
                    if len(end) < tarfile.BLOCKSIZE or end.strip(tarfile.NUL):  # tarfile ends here without a word
                        raise tarfile.ReadError("what follows is neither a member nor the end mark")
            except tarfile.TarError as error:
                if n_members:
                    raise UserError(
                        f"faces: {shard} is cut or damaged after {n_members} members ({error}); copy it again, or "
                        "unpack it and give the folder."
                    ) from error
                raise UserError(
                    f"faces: {shard} is not an uncompressed tar file ({error}); unpack or repack it."
                ) from error

    def _pictures(self, tar: tarfile.TarFile, sample: list[tarfile.TarInfo], shard: Location) -> Iterator[Picture]:
        named = _identity(tar, sample)
        tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every header in memory
        for member in sample:
            suffix = suffix_of(member.name)
            if suffix in PICTURE_SUFFIXES:
                identity = named or identity_of(member.name)
                fault = "" if member.isfile() else LINK
                yield Picture(member.name, identity, shard, offset=member.offset_data, length=member.size, fault=fault)
            elif suffix not in LABELS:
                self.passed_over[suffix] += 1


def _key(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.split('.', 1)[0]}"


def _identity(tar: tarfile.TarFile, sample: list[tarfile.TarInfo]) -> str:
    for member in sample:
        suffix = suffix_of(member.name)
        if suffix in LABELS and member.isfile() and member.size <= LARGEST_LABEL:
            content = tar.extractfile(member)
            text = content.read().decode("utf-8", "replace").strip() if content else ""
            if suffix == ".cls":
                return text
            label = parse_json(text, f"faces: {member.name} in {tar.name}", remedy="correct or remove it")
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
