"""What the served model takes: templates, as an array, a list or a table, or pictures."""

import base64
import binascii
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from fsae_mlflow.errors import UserError

COLUMN, PICTURES = "template", "picture"
RECOGNIZER = "recognizer"
"""The folder beside the SAE that makes a model take pictures (embedded.py)."""
TAKES = "give templates as an array or a list of shape (n, {d_in}) or ({d_in},), or a table with a column template"


def pictures_of(given: Any) -> list[bytes] | None:
    """The encoded pictures (JPEG, PNG, …) in what a caller gave, where these are pictures: bytes or base64 text, one or
    a list or array of them, a table with the column `picture` or with one column of them, or {"picture": …}.

    Raises: UserError for text that is not base64.
    """
    if isinstance(given, dict) and set(given) == {PICTURES}:
        given = given[PICTURES]
    if isinstance(given, pd.DataFrame) and COLUMN not in given:
        if PICTURES in given:
            given = given[PICTURES]
        elif len(given.columns) == 1:
            given = given.iloc[:, 0]
    if isinstance(given, pd.Series | np.ndarray):
        given = given.tolist()
    pictures = [given] if isinstance(given, str | bytes) else given
    if not isinstance(pictures, list) or not pictures or not all(isinstance(one, str | bytes) for one in pictures):
        return None
    return [one if isinstance(one, bytes) else _decoded(one, n) for n, one in enumerate(pictures)]


def _decoded(text: str, number: int) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"Picture {number} is not base64 text ({error}); give the file's bytes as base64.") from error


def templates_of(given: Any, d_in: int) -> Float[Tensor, "n d_in"]:
    """The templates in what a caller gave: an array, list or tensor (n, d_in), one template (d_in,), a table with the
    column `template`, with one column of templates or with d_in columns of numbers, or a dict of the kind
    {"template": …}.

    Raises: UserError for anything else, and for numbers that are not finite.
    """
    takes = TAKES.format(d_in=d_in)
    if isinstance(given, dict):
        if set(given) != {COLUMN}:
            raise UserError(f"The input has the keys {', '.join(map(str, given))}; {takes}.")
        given = given[COLUMN]
    if isinstance(given, pd.DataFrame):
        if COLUMN in given:
            given = given[COLUMN]
        elif len(given.columns) == 1 and d_in > 1:
            given = given.iloc[:, 0]
    if isinstance(given, pd.Series):
        given = given.tolist()
    try:
        values = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"The input is not a table of numbers ({error}); {takes}.") from error
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != d_in:
        raise UserError(f"The input has the shape {np.shape(given)}; {takes}.")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise UserError(f"The input must be finite numbers; row {row} is not.")
    return torch.from_numpy(np.ascontiguousarray(values))
