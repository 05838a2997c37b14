"""Files that may be damaged or come from others: JSON and safetensors read within bounds or refused, and digests."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsae_mlflow.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_JSON = 16 << 20
DEEPEST_JSON = 32
LARGEST_HEADER = 4 << 20
NAMES = {int: "whole number from 0", str: "string", bool: "true or false", dict: "object"}


def read_object(path: Path, what: str, *, remedy: str, fields: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The JSON object in the file `path`, in UTF-8, of at most 16 MiB and 32 levels.

    `what` begins the sentence of an error, before the path; `remedy` ends it. `fields` must be there with these types.

    Raises: UserError naming the file for anything else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_JSON + 1)
    except FileNotFoundError as error:
        raise UserError(f"{what} {path} does not exist; {remedy}.") from error
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read ({error.strerror}); {remedy}.") from error
    values = parse_json(content, f"{what} {path}", remedy=remedy)
    if not isinstance(values, dict):
        raise UserError(f"{what} {path} must hold one JSON object; it holds a {type(values).__name__}: {remedy}.")
    check_fields(values, f"{what} {path}", fields or {}, remedy=remedy)
    return values


def check_fields(values: Mapping[str, Any], place: str, fields: Mapping[str, type], *, remedy: str) -> None:
    """Refuse an object without one of `fields`, or with one of another type; whole numbers must not be negative.

    Raises: UserError naming the place and the field.
    """
    for name, kind in fields.items():
        value: Any = values.get(name)
        if type(value) is not kind or (kind is int and value < 0):
            found = f"it is {repr(value)[:60]}" if name in values else "it is missing"
            raise UserError(f"{place} must have {name} of type {NAMES[kind]}; {found}: {remedy}.")


def parse_json(content: bytes | str, place: str, *, remedy: str) -> Any:
    """The JSON value in a text that stands at `place`, with the bounds of `read_object`.

    Raises: UserError naming the place.
    """
    if len(content) > LARGEST_JSON:
        raise UserError(f"{place} must have at most {LARGEST_JSON >> 20} MiB and has more; {remedy}.")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        values = json.loads(text)
        too_deep = _deeper(values, DEEPEST_JSON)
        if not too_deep:
            json.dumps(values, ensure_ascii=False).encode()  # refuses unpaired surrogates, which no file can hold
    except RecursionError:
        values, too_deep = None, True
    except ValueError as error:  # broken UTF-8, broken JSON, or a number of thousands of digits
        raise UserError(f"{place} is not readable JSON ({error}); {remedy}.") from error
    if too_deep:
        raise UserError(f"{place} must have at most {DEEPEST_JSON} levels of nested values and has more; {remedy}.")
    return values


def read_tensors(path: Path, what: str, *, remedy: str) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors in a safetensors file by name, and its metadata; the header has at most 4 MiB.

    Raises: UserError naming the file if it is missing, damaged or truncated, or has a larger header.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            start = file.read(8)
        if len(start) == 8 and (length := struct.unpack("<Q", start)[0]) > LARGEST_HEADER:
            raise SafetensorError(f"its header has {length} bytes; at most {LARGEST_HEADER} are read")
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{what} {path} is not a readable safetensors file ({error}); {remedy}.") from error


def names_folder(path: Path, folder: Path) -> bool:
    """Whether the JSON in a file has the folder's path in it; False for a file that is gone meanwhile."""
    try:
        return json.dumps(str(folder.resolve()))[1:-1] in path.read_text()
    except FileNotFoundError:
        return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _deeper(values: Any, n_levels: int) -> bool:
    level = [values]
    for _ in range(n_levels + 1):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    return bool(level)
