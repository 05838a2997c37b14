"""Settings classes: bounds, options and the sentences they refuse with."""

from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Lt

from fsae_mlflow.parameters import options, settings


@settings
class Example:
    """Something to set."""

    lam: Annotated[float, "Sparsity.", Ge(0)] = 0.1
    share: Annotated[float, "A share.", Ge(0), Lt(1)] = 0.5
    kind: Annotated[Literal["a", "b"], "A kind."] = "a"
    limit: Annotated[int | None, "A limit."] = None
    path: Annotated[str, "A path."]

    def check(self) -> None:
        if self.path == "forbidden":
            raise ValueError("path must not be forbidden.")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lam": -1}, "lam must be greater than or equal to 0; it is -1."),
        ({"share": 1.0}, "share must be less than 1; it is 1.0."),
        ({"kind": "c"}, "kind must be 'a' or 'b'; it is 'c'."),
        ({"lam": float("nan")}, "lam must be a finite number; it is nan."),
        ({"lam": float("inf")}, "lam must be a finite number; it is inf."),
        ({"path": "forbidden"}, "path must not be forbidden."),
    ],
)
def test_refuses_with_one_sentence(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError) as refusal:
        Example(**{"path": "x", **values})  # pyright: ignore[reportArgumentType]
    assert str(refusal.value) == sentence


def test_options_read_the_fields_back() -> None:
    by_name = {option.name: option for option in options(Example)}
    assert list(by_name) == ["lam", "share", "kind", "limit", "path"]
    assert by_name["lam"].help == "Sparsity." and by_name["lam"].type is float and by_name["lam"].default == 0.1
    assert by_name["kind"].choices == ("a", "b")
    assert by_name["limit"].type is int
    assert by_name["path"].required and not by_name["lam"].required


def test_frozen_and_keyword_only() -> None:
    example = Example(path="x")
    with pytest.raises(AttributeError):
        example.lam = 2  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        Example("x")  # pyright: ignore[reportCallIssue]
