"""Artifacts as folders of this machine: those of a remote store are downloaded once."""

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from mlflow.artifacts import download_artifacts, list_artifacts
from mlflow.utils.uri import is_local_uri

from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.parameters import fingerprint, output_folder


def downloaded(address: str) -> Path:
    """The folder of the artifact at `address`: in a local store itself, else a copy below `outputs/downloads`.

    A copy is used again where its files and their sizes are those that the store has now.

    Raises: MlflowException or OSError where there is no such artifact.
    """
    if is_local_uri(address, is_tracking_or_registry_uri=False):
        return Path(download_artifacts(artifact_uri=address))
    place = output_folder("downloads", "", fingerprint({"address": address}))
    copy = place / address.rpartition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if not copy.is_dir() or dict(_stored(address)) != _sizes(copy):
            with atomic_write(place) as temporary:
                download_artifacts(artifact_uri=address, dst_path=str(temporary))
    return copy


def _stored(address: str, folder: str = "") -> Iterator[tuple[str, int]]:
    for one in list_artifacts(artifact_uri=address):
        name = one.path.rpartition("/")[2]
        if one.is_dir:
            yield from _stored(f"{address}/{name}", f"{folder}{name}/")
        else:
            yield folder + name, one.file_size or 0


def _sizes(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
