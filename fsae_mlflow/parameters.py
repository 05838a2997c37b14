"""Settings of a stage: a frozen dataclass that explains its fields, checks their bounds and can be a command line.

    @settings
    class TrainSettings:
        lr: Annotated[float, "AdamW's initial learning rate.", Gt(0)] = 5e-4

`options` reads the fields back for whoever builds a command line, so no parameter is listed twice.
"""

import dataclasses
import math
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from annotated_types import BaseMetadata, Ge, Gt, Le, Lt, MultipleOf

T = TypeVar("T")

BOUNDS: dict[type[BaseMetadata], tuple[str, str, Callable[[Any, Any], bool]]] = {
    Ge: ("ge", "at least", lambda value, bound: value >= bound),
    Gt: ("gt", "greater than", lambda value, bound: value > bound),
    Le: ("le", "at most", lambda value, bound: value <= bound),
    Lt: ("lt", "less than", lambda value, bound: value < bound),
    MultipleOf: ("multiple_of", "a multiple of", lambda value, bound: value % bound == 0),
}


@dataclass(frozen=True)
class Option:
    """One field of a settings class as a command line needs it."""

    name: str
    type: type
    help: str
    default: Any
    choices: tuple[str, ...] = ()
    bounds: tuple[BaseMetadata, ...] = ()

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass that refuses values outside its fields' bounds.

    A method `check(self)` of the class runs last, for rules that join several fields.

    Raises (when an instance is made): ValueError naming the field, its requirement and the value.
    """

    def check_fields(self: Any) -> None:
        for option in options(cls):
            _check(option, getattr(self, option.name))
        if hasattr(self, "check"):
            self.check()

    cls.__post_init__ = check_fields  # pyright: ignore[reportAttributeAccessIssue]
    return dataclass(frozen=True, kw_only=True)(cls)


def options(cls: type) -> Iterator[Option]:
    """The fields of a settings class in their order, with type, help, default, choices and bounds."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        base, *extras = (
            get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else [hints[field.name]]
        )
        if get_origin(base) in (Union, types.UnionType):
            base = next(kind for kind in get_args(base) if kind is not types.NoneType)
        choices = get_args(base) if get_origin(base) is Literal else ()
        yield Option(
            name=field.name,
            type=str if choices else base,
            help=next((extra for extra in extras if isinstance(extra, str)), ""),
            default=field.default,
            choices=choices,
            bounds=tuple(extra for extra in extras if isinstance(extra, BaseMetadata)),
        )


def _check(option: Option, value: Any) -> None:
    if value is None and option.default is None:
        return
    if option.choices and value not in option.choices:
        raise ValueError(f"{option.name} must be one of {', '.join(option.choices)}; it is {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{option.name} must be a finite number; it is {value}.")
    for bound in option.bounds:
        attribute, words, holds = BOUNDS[type(bound)]
        limit = getattr(bound, attribute)
        if not holds(value, limit):
            raise ValueError(f"{option.name} must be {words} {limit}; it is {value}.")
