"""Pictures listed in a table: columns path, identity, and any others, which become attributes."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.pictures import Picture, identity_of
from fsae_mlflow.faces.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

CONVERT = {"int": int, "float": float, "bool": bool, "string": str}


class CsvList:
    """A .csv or .tsv file with a header; relative paths start at its folder.

    An attribute is a number if every value of its column is one (empty means unknown), else a string.

    Raises: UserError naming the file, and the line if one is wrong.
    """

    def __init__(self, faces: str) -> None:
        self.name, self.location = faces, _existing(faces)
        kinds: dict[str, str] = {}
        for _, row in self._rows():
            for name, text in _attributes(row).items():
                kinds[name] = _wider(kinds.get(name, "int"), text)
        self.attributes: Mapping[str, str] = kinds

    def __iter__(self) -> Iterator[Picture]:
        for line, row in self._rows():
            if not row["path"]:
                raise UserError(f"faces: {self.name}, line {line}: the path is empty; give the path of the picture.")
            values = tuple(CONVERT[kind](row[name]) if row[name] else None for name, kind in self.attributes.items())
            yield _picture(row["path"], row.get("identity"), self.location, values)

    def _rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        with self.location.open() as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
            lines = csv.reader(text, delimiter="\t" if self.location.name.lower().endswith(".tsv") else ",")
            try:
                header = _checked(self.name, [name.strip() for name in next(lines, [])])
                for values in lines:
                    if len(values) != len(header) and values:
                        raise UserError(
                            f"faces: {self.name}, line {lines.line_num} must have {len(header)} values, "
                            f"as the header; it has {len(values)}."
                        )
                    if values:
                        yield lines.line_num, dict(zip(header, map(str.strip, values), strict=True))
            except (csv.Error, UnicodeDecodeError) as error:
                raise UserError(f"faces: {self.name} is not a UTF-8 CSV file ({error}); convert it.") from error


class ParquetList:
    """A Parquet file; relative paths start at its folder.

    Raises: UserError naming the file and the mistake.
    """

    def __init__(self, faces: str) -> None:
        from pyarrow import ArrowException, parquet

        self.name, self.location = faces, _existing(faces)
        try:
            with self.location.open() as file:
                columns = parquet.ParquetFile(file).schema_arrow
        except ArrowException as error:
            raise UserError(f"faces: {faces} is not a Parquet file ({error}); give another file.") from error
        _checked(faces, columns.names)
        self.attributes: Mapping[str, str] = {
            column.name: _kind(column.type) for column in columns if column.name not in ("path", "identity")
        }

    def __iter__(self) -> Iterator[Picture]:
        from pyarrow import parquet

        with self.location.open() as file:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=8192):
                for row in batch.to_pylist():
                    values = tuple(
                        None if row[name] is None else CONVERT[kind](row[name])
                        for name, kind in self.attributes.items()
                    )
                    yield _picture(str(row["path"]), row.get("identity"), self.location, values)


def _existing(faces: str) -> Location:
    location = Location.of(faces)
    if location.kind != "file":
        raise UserError(f"faces: there is no file {faces}; give a list with the column path.")
    return location


def _checked(name: str, header: list[str]) -> list[str]:
    if "path" not in header:
        raise UserError(f"faces: {name} must have the column path; its columns are {', '.join(header) or 'none'}.")
    if twice := {column for column in header if header.count(column) > 1}:
        raise UserError(f"faces: {name} has two columns named {', '.join(sorted(twice))}; rename one.")
    return header


def _attributes(row: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in row.items() if name not in ("path", "identity")}


def _wider(kind: str, text: str) -> str:
    """The narrowest of int, float and string that also holds this value."""
    for candidate in ("int", "float"):
        if kind in ("int", candidate):
            try:
                CONVERT[candidate](text or "0")
            except ValueError:
                continue
            return candidate
    return "string"


def _kind(column: "pa.DataType") -> str:
    from pyarrow import types

    if types.is_boolean(column):
        return "bool"
    if types.is_integer(column):
        return "int"
    return "float" if types.is_floating(column) or types.is_decimal(column) else "string"


def _picture(path: str, identity: Any, beside: Location, attributes: tuple[Any, ...]) -> Picture:
    named = str(identity) if identity not in (None, "") else identity_of(path)
    if "\0" in path:
        return Picture(path, named, beside, attributes=attributes, fault="The path holds a NUL character.")
    try:
        return Picture(path, named, beside.beside(path), attributes=attributes)
    except UserError as error:
        return Picture(path, named, beside, attributes=attributes, fault=str(error))
