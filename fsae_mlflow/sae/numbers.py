"""Features named by their numbers."""

import re
from collections.abc import Sequence

from fsae_mlflow.errors import UserError


def feature_numbers(words: Sequence[str], d_sae: int, *, must: str) -> list[int]:
    """The features that words name, each once, in their order.

    Raises: UserError for a word that is no feature's number; it begins with `must`, what is accepted beside numbers.
    """
    if unknown := [word for word in words if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= d_sae]:
        raise UserError(
            f"{must}numbers from 0 to {d_sae - 1} separated by commas (d_sae is {d_sae}); one is {unknown[0]!r}."
        )
    return list(dict.fromkeys(map(int, words)))
