"""Labels of faces: a set's own extra columns, and those of a CSV or Parquet file joined by the faces' paths."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64, Shaped
from pyarrow import csv

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.storage import Location
from fsae_mlflow.templates.set import TemplateSet

FEWEST_PEOPLE = 20
"""Labeled people that can be split into halves, one to discover and one to confirm."""
IDS = ("path", "identity")
LARGEST_BLOCK = 2**31 - 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels of all rows of a template set by name, nan where unknown.

    `booleans` are 0 or 1; `numbers` are as they were written.
    """

    booleans: dict[str, Float64[np.ndarray, " n"]]
    numbers: dict[str, Float64[np.ndarray, " n"]]


def read_attributes(path: str, templates: TemplateSet, *, fewest: int = FEWEST_PEOPLE) -> Labels:
    """The labels of a set's faces: its extra columns, and those of a CSV, TSV or Parquet file; "" reads no file.

    The file has the column path, the image_id of a face; a leading ./ and folders that all paths begin with need not be
    the same. A column of 0 and 1, −1 and 1, or true and false is boolean, any other numeric; infinite values are
    unknown. Left out with a warning are the set's columns of text, and columns with fewer than `fewest` labeled people
    or one value. A column of the file takes the place of the set's column of this name.

    Raises: UserError naming the file where it cannot be read, has no column path or a path twice, has a column of text
    beside path and identity, labels no face of the set, or leaves no column.
    """
    texts = [name for name, kind in templates.attributes.items() if kind == "string"]
    if texts:
        logger.warning(
            "templates: the columns %s hold text, not numbers, so they are not used as attributes.", ", ".join(texts)
        )
    own = {name: _numbers(templates.column(name)) for name in templates.attributes if name not in texts}
    found, _ = _usable(own, templates, fewest)
    if path:
        usable, faults = _usable(_joined(path, templates), templates, fewest)
        if not usable:
            raise UserError(
                f"attributes: {path} must have a column with two values and {fewest} labeled people; "
                f"{'; '.join(faults[:3]) or 'it has no column of labels'}: give a "
                "column in which both values occur, on faces of more people."
            )
        found |= usable
    booleans = {name: values.clip(min=0) for name, values in found.items() if _is_boolean(values)}
    return Labels(booleans=booleans, numbers={name: found[name] for name in found if name not in booleans})


def digest_of(path: str) -> str:
    """A short hash of the file of labels; "" for none.

    Raises: UserError where it cannot be read.
    """
    if not path:
        return ""
    try:
        return hashlib.sha256(Location.of(path).read()).hexdigest()[:16]
    except OSError as error:
        raise UserError(f"attributes: {path} cannot be read ({error}); give a readable file.") from error


def _usable(
    columns: Mapping[str, Float64[np.ndarray, " n"]], templates: TemplateSet, fewest: int
) -> tuple[dict[str, Float64[np.ndarray, " n"]], list[str]]:
    """The columns that can be judged, and for each of the others a sentence, which is also a warning."""
    usable, faults = {}, []
    for name, values in columns.items():
        known = ~np.isnan(values)
        n_people = len(set(templates.identities[known]))
        if n_people < fewest:
            faults.append(f"{name} labels {n_people} people")
        elif np.ptp(values[known]) == 0:
            faults.append(f"{name} has the one value {values[known][0]:g}")
        else:
            usable[name] = values
            continue
        logger.warning("attributes: %s; the column is left out", faults[-1])
    return usable, faults


def _is_boolean(values: Float64[np.ndarray, " n"]) -> bool:
    return set(np.unique(values[~np.isnan(values)])) in ({0, 1}, {-1, 1})


def _numbers(column: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Numbers or booleans with None where unknown, as numbers."""
    values = np.array(column, dtype=np.float64)
    values[np.isinf(values)] = np.nan
    return values


def _joined(path: str, templates: TemplateSet) -> dict[str, Float64[np.ndarray, " n"]]:
    """The columns of the file in the order of the set's rows."""
    table = _read(path)
    names = table.column_names
    if "path" not in names:
        raise UserError(f"attributes: {path} must have the column path; its columns are {', '.join(names) or 'none'}.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"attributes: {path} has two columns named {', '.join(twice)}; rename one.")
    columns = {name: _column(path, table, name) for name in names if name not in IDS}
    place = _places(path, [str(one) for one in table.column("path").to_pylist()], templates)
    return {name: np.append(values, np.nan)[place] for name, values in columns.items()}


def _places(path: str, paths: Sequence[str], templates: TemplateSet) -> Int64[np.ndarray, " n"]:
    """The line of the file for each row of the set, −1 where there is none."""
    written = [one.removeprefix("./") for one in paths]
    wanted = [one.removeprefix("./") for one in templates.image_ids]
    lines = {one: line for line, one in enumerate(written)}
    if len(lines) < len(written):
        twice = next(one for line, one in enumerate(written) if lines[one] != line)
        raise UserError(f"attributes: {path} has the path {twice} twice; leave one line for each face.")
    folders = (_common_folder(written), _common_folder(wanted))
    place = np.full(len(wanted), -1)
    for of_file, of_set in ((0, 0), (folders[0], 0), (0, folders[1]), folders):
        lines = {one[of_file:]: line for line, one in enumerate(written)}
        found = np.array([lines.get(one[of_set:], -1) for one in wanted], np.int64)
        if (found >= 0).sum() > (place >= 0).sum():
            place = found
    n_found = int((place >= 0).sum())
    if not n_found:
        raise UserError(
            f"attributes: no path in {path} is a face of {templates.folder}: the file has "
            f"{paths[0] if paths else 'no line'}, the set {templates.image_ids[0]}; write the paths as in the set."
        )
    logger.info("attributes: %s labels %s of %s faces", path, f"{n_found:,}", f"{len(place):,}")
    return place


def _common_folder(paths: Sequence[str]) -> int:
    """The length of the folders that all paths begin with."""
    first, last = min(paths, default=""), max(paths, default="")
    n_equal = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:n_equal].rfind("/") + 1


def _column(path: str, table: pa.Table, name: str) -> Float64[np.ndarray, " n"]:
    column = table.column(name)
    kinds = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(fits(column.type) for fits in kinds):
        text = next((one for one in column.to_pylist() if one is not None), "")
        raise UserError(
            f"attributes: {path} has {str(text)[:40]!r} in the column {name}; its values must be numbers, true or "
            "false: write numbers, or remove the column."
        )
    return _numbers(column.cast(pa.float64()).to_numpy())


def _read(path: str) -> pa.Table:
    location = Location.of(path)
    kind = PurePosixPath(location.name).suffix.lower()
    if kind not in (".csv", ".tsv", ".parquet"):
        raise UserError(f"attributes: {path} must be a .csv, .tsv or .parquet file; give one of these.")
    try:
        content = pa.py_buffer(location.read())
        if kind == ".parquet":
            table = pq.read_table(pa.BufferReader(content))
        else:
            table = csv.read_csv(
                pa.BufferReader(content),
                # One block: the types of the columns are found from all lines.
                read_options=csv.ReadOptions(block_size=min(max(len(content), 1), LARGEST_BLOCK)),
                parse_options=csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ","),
                convert_options=csv.ConvertOptions(column_types={"path": pa.string()}),
            )
        return table.rename_columns([name.strip() for name in table.column_names])
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"attributes: {path} cannot be read ({error}); give a readable {kind} file.") from error
