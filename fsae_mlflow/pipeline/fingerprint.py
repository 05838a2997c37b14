"""What decides the result of a stage, as one short hash: equal hashes mean that the stage need not run again."""

import platform
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256 as sha256_of
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fsae_mlflow
from fsae_mlflow.faces.pictures import take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.files.documents import sha256
from fsae_mlflow.parameters import fingerprint, flat, options

HOW = ("device", "preset")


class UnknownContentError(Exception):
    """A value whose content cannot be known without running the stage, such as `latest`, an alias or a bucket."""


def stage_fingerprint(stage: str, settings: Any, made: Mapping[str, str]) -> str:
    """A short hash of a stage's settings, of the content of what they name, and of the code.

    `made` has the digests of what runs made, by run id. Of the settings marked EXECUTION only those count that name
    something or switch something on, not numbers. The working directory must be the project's root.

    Raises: UnknownContentError naming the value whose content cannot be known.
    """
    known = {option.name: option for option in options(type(settings))}
    content: dict[str, Any] = {"stage": stage, "code": code_digest()}
    for name, value in flat(settings).items():
        option = known[name]
        if option.execution and (option.type not in (str, bool) or name in HOW):
            continue
        if name == "faces":
            content[name] = _pictures(value)
        else:
            content[name] = _content(value, made) if isinstance(value, str) and not option.choices else value
    return fingerprint(content)


def code_digest() -> str:
    """A hash of the package's files, the entry points, and the versions of Python and of the required packages.

    Raises: OSError where the working directory is not the project's root.
    """
    package = Path(fsae_mlflow.__file__).parent
    files = {
        f"{root.name}/{path.relative_to(root)}": sha256(path)
        for root in (package, Path("entrypoints"))
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return fingerprint(files | _versions(Path("pyproject.toml").read_text()))


@cache
def _versions(pyproject: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for requirement in tomllib.loads(pyproject)["project"]["dependencies"]:
        name = re.split(r"[^\w.-]", requirement)[0]
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def _pictures(faces: str) -> list[str]:
    inventory = take_inventory(open_source(faces))
    if not inventory.stamped:
        raise UnknownContentError(faces)
    return [inventory.digest, inventory.files]


def _content(value: str, made: Mapping[str, str]) -> list[str]:
    """What a value names: what a run made, files by their content, folders by names, sizes and modification times."""
    if value in made:
        return [made[value]]
    if value == "latest" or "://" in value or (value.startswith("models:/") and re.search(r"@|/latest$", value)):
        raise UnknownContentError(value)
    parts = [part.strip() for part in value.split(",")]
    return [value, *(digest for part in (*parts, value.partition(":")[2]) for digest in _files(part))]


def _files(name: str) -> Iterator[str]:
    path = Path(name).expanduser()
    try:
        if path.is_file():
            yield sha256(path)
        elif name and path.is_dir():
            listing = sorted((str(one), one.stat()) for one in path.rglob("*") if one.is_file())
            stamps = "\n".join(f"{one} {stat.st_size} {stat.st_mtime_ns}" for one, stat in listing)
            yield sha256_of(stamps.encode()).hexdigest()
    except OSError:  # a value that is no name of a file, or a file that the stage will refuse
        return
