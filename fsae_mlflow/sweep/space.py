"""What a sweep searches: parameters of a training, each with a range or a list of values.

    lam:1e-3..1:log,expansion:4|8|16,variant:topk|gated,k:16..128

Parameters stand between commas. `LOW..HIGH` is a range, `LOW..HIGH:log` one on a log scale, and `A|B|C` a list. A
single value is fixed in all trials that have the parameter. A parameter that a trial's variant does not have, or does
not read, is not drawn in that trial: here k only for topk, and lam only for gated.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import Option, flat, options, parse, unknown, unread
from fsae_mlflow.sae.training.settings import TrainSettings

Value = float | int | str | bool
DEFAULTS = {"lam": "lam:1e-3..1:log", "k": "k:16..128:log", "expansion": "expansion:4|8|16"}
"""What is searched where nothing is said: of these, the parameters that the variant has."""
VARIANT = "variant"
MOST_LISTED = 1000
DIGITS = 4  # of a drawn number: more say nothing
GRAMMAR = "write NAME:LOW..HIGH, NAME:LOW..HIGH:log or NAME:A|B|C, with commas between"


@dataclass(frozen=True)
class Values:
    """A list of values; a single one is fixed."""

    values: tuple[Value, ...]

    def suggest(self, trial: Any, name: str) -> Value:
        return self.values[0] if len(self.values) == 1 else trial.suggest_categorical(name, self.values)

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that are checked before the first trial."""
        return self.values


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, or all whole numbers, drawn evenly or evenly in their logarithm."""

    low: float | int
    high: float | int
    log: bool = False

    def suggest(self, trial: Any, name: str) -> Value:
        if isinstance(self.low, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        drawn = trial.suggest_float(name, self.low, self.high, log=self.log)
        # Of a narrow range the first digits are the same.
        same = int(math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low)))
        return min(max(float(f"{drawn:.{DIGITS + max(same, 0)}g}"), self.low), self.high)

    @property
    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)


@dataclass(frozen=True)
class Space:
    """The parameters that are searched, and the settings of a training that all trials have otherwise.

    `known` are all parameters of a training by name.
    """

    dimensions: Mapping[str, Values | Range]
    base: TrainSettings
    known: Mapping[str, Option] = field(repr=False)

    def chosen(self, trial: Any) -> dict[str, Value]:
        """The values of one Optuna trial, the fixed ones too: the variant first, then what that variant has."""
        values: dict[str, Value] = {}
        if VARIANT in self.dimensions:
            values[VARIANT] = self.dimensions[VARIANT].suggest(trial, VARIANT)
        for name in self._of_variant(str(values.get(VARIANT, flat(self.base)[VARIANT]))):
            values[name] = self.dimensions[name].suggest(trial, name)
        return values

    def settings(self, chosen: Mapping[str, Value]) -> TrainSettings:
        """The settings of a training with the chosen values.

        Raises: UserError where they do not go together.
        """
        shared = flat(self.base)
        if chosen.get(VARIANT, shared[VARIANT]) != shared[VARIANT]:
            # Another variant takes its own defaults.
            shared = {name: value for name, value in shared.items() if not self.known[name].choice}
        return parse(TrainSettings, chosen, preset=shared)

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination of values: what Optuna draws, without the fixed ones.

        Raises: UserError for a range of numbers that are not whole.
        """
        for variant in self._variants:
            names = self._of_variant(variant)
            free = [name for name in names if len(_listed(name, self.dimensions[name])) > 1]
            drawn = {VARIANT: variant} if len(self._variants) > 1 else {}
            for values in itertools.product(*(_listed(name, self.dimensions[name]) for name in free)):
                yield drawn | dict(zip(free, values, strict=True))

    def check(self) -> None:
        """Try the ends of every range, and every listed value, in every variant.

        Raises: UserError for a value that a training refuses, and for a parameter that no variant of the search has.
        """
        for variant in self._variants:
            chosen = {VARIANT: variant} if VARIANT in self.dimensions else {}
            names = self._of_variant(variant)
            first = {name: self.dimensions[name].ends[0] for name in names}
            try:
                for name in names:
                    for value in self.dimensions[name].ends:
                        self.settings(chosen | first | {name: value})
            except UserError as error:
                raise UserError(f"space: {error}") from error
        if (
            idle := self.dimensions.keys()
            - {VARIANT}
            - {name for one in self._variants for name in self._of_variant(one)}
        ):
            name = min(idle)
            of = self.known[name].defaults
            raise UserError(
                f"space: {name} is searched, but no variant of the search ({', '.join(self._variants)}) reads it; "
                + (f"search variant:{'|'.join(of)} too, or leave {name} out." if of else f"leave {name} out.")
            )

    def largest(self, name: str) -> float:
        """The largest value of a number among all trials."""
        dimension = self.dimensions.get(name)
        return max(map(float, dimension.ends)) if dimension else float(flat(self.base)[name])

    @property
    def _variants(self) -> list[str]:
        return [str(one) for one in self.dimensions.get(VARIANT, Values((flat(self.base)[VARIANT],))).ends]

    def _of_variant(self, variant: str) -> list[str]:
        """The searched parameters that the variant has and reads, but for the variant itself."""
        one_of = self.known[VARIANT].one_of
        assert one_of is not None
        ignored = {VARIANT, *unread(self.known.values(), one_of.choices()[variant])}
        absent = {option.name for option in self.known.values() if option.choice and variant not in option.defaults}
        return [name for name in self.dimensions if name not in ignored | absent]


def read_space(text: str, base: TrainSettings) -> Space:
    """The search that `text` declares around the settings `base`; an empty text: DEFAULTS as far as the variant goes.

    Raises: UserError naming the parameter, and what it must be.
    """
    if not text.strip():
        text = ",".join(part for name, part in DEFAULTS.items() if name in flat(base))
    known = {option.name: option for option in options(TrainSettings)}
    dimensions: dict[str, Values | Range] = {}
    for part in text.split(","):
        name, colon, body = (piece.strip() for piece in part.partition(":"))
        if not re.fullmatch(r"[\w.-]+", name) or not colon or not body:
            raise UserError(f"space: {part.strip()!r} must be a parameter and its values; {GRAMMAR}.")
        option = known.get(name)
        if option is None:
            raise UserError(f"space: {unknown(name, [one.name for one in known.values() if not one.execution])}")
        if option.execution:
            raise UserError(f"space: {name} must be a parameter that changes the result of a training; leave it out.")
        if name in dimensions:
            raise UserError(f"space: {name} is there twice; write its values with | between.")
        dimensions[name] = _dimension(option, body)
    space = Space(dimensions, base, known)
    space.check()
    return space


def _dimension(option: Option, body: str) -> Values | Range:
    if ".." not in body:
        values = tuple(_value(option, one.strip()) for one in body.split("|"))
        if len(set(values)) < len(values):
            raise UserError(
                f"space: the values of {option.name} must differ; they are {body}. Remove the repeated one."
            )
        return Values(values)
    ends, _, scale = body.partition(":")
    low, high = (_value(option, one.strip()) for one in ends.split("..", 1))
    if isinstance(low, str | bool) or isinstance(high, str | bool):
        raise UserError(f"space: a range needs a number, and {option.name} is not one; write {option.name}:A|B|C.")
    if scale.strip() not in ("", "log"):
        raise UserError(f"space: {option.name} has the scale {scale.strip()!r}; it is log or left out.")
    if low >= high:
        raise UserError(f"space: the range of {option.name} must go from a smaller to a larger number; it is {body}.")
    if scale and low <= 0:
        raise UserError(
            f"space: a log range must start above 0; {option.name} starts at {low:g}. Raise it, or leave :log out."
        )
    return Range(low, high, log=bool(scale))


def _value(option: Option, text: str) -> Value:
    if option.choices:
        if text not in option.choices:
            raise UserError(
                f"space: {unknown(f'{option.name}:{text}', [f'{option.name}:{one}' for one in option.choices])}"
            )
        return text
    if option.type is bool:
        if text.lower() not in ("true", "false"):
            raise UserError(f"space: {option.name} must be true or false; it is {text[:100]!r}.")
        return text.lower() == "true"
    try:
        value = option.type(text)
        if option.type is str or math.isfinite(value):
            return value
    except (ValueError, OverflowError):
        pass
    kind = "a whole number" if option.type is int else "a number"
    raise UserError(f"space: {option.name} must be {kind}; it is {text[:100]!r}.")


def _listed(name: str, dimension: Values | Range) -> list[Value]:
    if isinstance(dimension, Values):
        return list(dimension.values)
    low, high = dimension.low, dimension.high
    if isinstance(low, int) and isinstance(high, int) and high - low < MOST_LISTED:
        return list(range(low, high + 1))
    raise UserError(f"space: {name} is a range, and sampler=grid tries listed values; write {name}:A|B|C.")
