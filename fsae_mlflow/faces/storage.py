"""Files on this machine, and in any storage that pyarrow.fs or fsspec reads."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from fsae_mlflow.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Location:
    """A file or folder: `path` in the file system of the URI `root`; with an empty root, on this machine."""

    path: str
    root: str = ""

    @classmethod
    def of(cls, text: str) -> "Location":
        """The location that a path or URI (s3://bucket/folder, gs://…, file:///…, memory://…) names.

        Raises: UserError for a URI that neither pyarrow nor fsspec can open.
        """
        if "://" not in text:
            return cls(str(Path(text).expanduser()))
        system, path = _file_system(text)
        return cls(path) if system.type_name == "local" else cls(path, text)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def kind(self) -> str:
        """What is there: "file", "folder" or "nothing"."""
        if not self.root:
            return "folder" if Path(self.path).is_dir() else "file" if Path(self.path).is_file() else "nothing"
        kind = _file_system(self.root)[0].get_file_info(self.path).type.name
        return {"File": "file", "Directory": "folder"}.get(kind, "nothing")

    def beside(self, relative: str) -> "Location":
        """What `relative` means in a list at this location: a path below its folder, or an absolute path or URI."""
        if "://" in relative or (not self.root and Path(relative).is_absolute()):
            return Location.of(relative)
        if not self.root:
            return Location(str(Path(self.path).parent / relative))
        return Location(str(PurePosixPath(self.path).parent / relative), self.root)

    @property
    def resolved(self) -> str:
        """The path without links; in a bucket, which has none, the path."""
        return self.path if self.root else os.path.realpath(self.path)

    def entries(self) -> Iterator[tuple["Location", str, int]]:
        """What a folder holds, sorted by name: location, "file" or "folder", and size in bytes (-1 if unknown)."""
        if not self.root:
            with os.scandir(self.path) as listing:
                found = [(entry.name, *_folder_and_size(entry)) for entry in listing]
            for name, is_folder, size in sorted(found):
                yield Location(os.path.join(self.path, name)), "folder" if is_folder else "file", size  # noqa: PTH118
            return
        from pyarrow.fs import FileSelector, FileType

        found = _file_system(self.root)[0].get_file_info(FileSelector(self.path))
        for info in sorted(found, key=lambda info: info.base_name):
            is_folder = info.type == FileType.Directory
            size = -1 if is_folder or info.size is None else info.size
            yield Location(info.path, self.root), "folder" if is_folder else "file", size

    def stamp(self) -> str:
        """The size and modification time of a file; empty if it cannot be asked."""
        try:
            if not self.root:
                found = os.stat(self.path)  # noqa: PTH116
                return f"{found.st_size} {found.st_mtime_ns}"
            info = _file_system(self.root)[0].get_file_info(self.path)
            return f"{info.size} {info.mtime_ns}"
        except (OSError, ValueError):
            return ""

    def open(self) -> io.BufferedReader:
        """The file, opened for reading; it is seekable."""
        if not self.root:
            if not stat.S_ISREG(mode := Path(self.path).stat().st_mode) and not stat.S_ISDIR(mode):
                raise OSError(errno.ESPIPE, "it is a pipe, a socket or a device")  # to open it may wait for ever
            return Path(self.path).open("rb")
        return io.BufferedReader(cast(io.RawIOBase, _file_system(self.root)[0].open_input_file(self.path)))

    def read(self, offset: int = 0, length: int = -1) -> bytes:
        """Bytes of the file from `offset`, `length` of them or to the end."""
        with self.open() as file:
            if offset:
                file.seek(offset)
            return file.read(length) if length >= 0 else file.read()

    def __str__(self) -> str:
        return f"{self.root.split('://')[0]}://{self.path}" if self.root else self.path


def _folder_and_size(entry: os.DirEntry[str]) -> tuple[bool, int]:
    try:
        return (True, -1) if entry.is_dir() else (False, entry.stat().st_size)
    except OSError:  # a broken or circular link, which fails when it is read
        return False, -1


def _file_system(uri: str) -> "tuple[FileSystem, str]":
    """The file system of a URI, and its path there; every store has one client, not every URI."""
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    store, slash, path = place.partition("/")
    if client := _client(scheme, store, query):
        system, root = client
        return system, unquote(f"{root}/{path}" if root else slash + path).rstrip("/") or "/"
    try:
        system, path = fsspec.core.url_to_fs(uri)  # it keeps its own clients
        return PyFileSystem(FSSpecHandler(system)), path
    except (ValueError, ImportError) as error:
        raise UserError(f"faces: {uri} cannot be opened by pyarrow or fsspec ({error}).") from error


@lru_cache(maxsize=64)
def _client(scheme: str, store: str, query: str) -> "tuple[FileSystem, str] | None":
    """The client of a store, by pyarrow, and the path of its root; None for a scheme that pyarrow does not know."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        system, root = FileSystem.from_uri(f"{scheme}://{store}/" + (f"?{query}" if query else ""))
    except (ArrowException, NotImplementedError):
        return None
    return system, root.strip("/")
