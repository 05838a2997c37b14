"""The columns of a template set's Parquet files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FaceRow:
    """One aligned face with its template and its origin.

    Box and keypoints are in pixels of the upright source picture. `faces/quality.py` defines `yaw`, `sharpness` and
    `interocular` (in source pixels). Unknown values (keypoints of a central crop) are nan. `attributes` are the values
    of the source's extra columns, in their order.
    """

    image_id: str
    identity: str
    template: Float32[np.ndarray, " d"]
    probability: float
    box: Float32[np.ndarray, "4"]
    keypoints: Float32[np.ndarray, "5 2"]
    source_width: int
    source_height: int
    yaw: float
    sharpness: float
    interocular: float
    jpeg: bytes = field(repr=False)
    attributes: tuple[Any, ...] = ()


def schema(width: int, attributes: Mapping[str, str] | None = None) -> pa.Schema:
    """The columns of a template shard for templates of `width` numbers, followed by the source's extra columns.

    Raises: ValueError if an extra column has the name of a column that every set has.
    """
    number = pa.float32()
    more = [pa.field(name, ATTRIBUTE_TYPES[kind]) for name, kind in (attributes or {}).items()]
    own = pa.schema(
        [
            ("image_id", pa.string()),
            ("identity", pa.string()),
            ("template", pa.list_(number, width)),
            ("probability", number),
            ("box", pa.list_(number, 4)),
            ("keypoints", pa.list_(number, 10)),
            ("source_width", pa.int32()),
            ("source_height", pa.int32()),
            ("yaw", number),
            ("sharpness", number),
            ("interocular", number),
        ]
    )
    if taken := sorted(set(own.names) & {column.name for column in more}):
        raise ValueError(
            f"faces: the list's columns must not be named {', '.join(taken)}, as every template set has these; rename."
        )
    return pa.schema([*own, *more])


ATTRIBUTE_TYPES = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "string": pa.string()}
FACE_SCHEMA = pa.schema([("image_id", pa.string()), ("face", pa.binary())])
FAILURE_SCHEMA = pa.schema([("image_id", pa.string()), ("reason", pa.string())])
