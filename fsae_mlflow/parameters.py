"""Settings of a stage: one frozen dataclass is its documentation, its command line and its fingerprint.

    @settings
    class TrainSettings:
        lr: Annotated[float, "AdamW's initial learning rate.", Gt(0)] = 5e-4
        device: Annotated[str, "Where to train.", EXECUTION] = "auto"
        variant: Annotated[VariantSettings, "Kind of SAE.", OneOf(lambda: VARIANTS)] = GatedSettings()

A field that is `OneOf` several settings classes is written flat, as the name of the class and that class' own fields:
`variant=topk k=32`. A field that holds `Parts` is written as the values that are given to other settings classes, each
with the name of its class: `train_sae.k=32`. `options` lists all fields for a command line, `parse` builds the settings
from such flat values, and `flat` gives them back.
"""

import dataclasses
import difflib
import hashlib
import json
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

import pydantic
from pydantic.dataclasses import dataclass as validated

from fsae_mlflow.errors import UserError

T = TypeVar("T")
# Whole numbers go to C code that takes 32 bits, and seeds to generators that take no more.
LARGEST = 2**31 - 1


class Marker(Enum):
    """Marks on fields, for whoever reads them."""

    EXECUTION = "how or where the stage runs: another value gives the same result"


EXECUTION = Marker.EXECUTION


@dataclass(frozen=True)
class OneOf:
    """Marks a field that holds an instance of one of several settings classes, which `choices` gives by name."""

    choices: Callable[[], Mapping[str, type]]

    def name_of(self, chosen: object) -> str:
        """The name that the settings class of `chosen` has among the choices."""
        return next(name for name, kind in self.choices().items() if kind is type(chosen))


@dataclass(frozen=True)
class Parts:
    """Marks a field {NAME: {FIELD: value}} of values given to other settings classes, which `classes` gives by name."""

    classes: Callable[[], Mapping[str, type]]


@dataclass(frozen=True)
class Choice:
    """Marks a field that holds one of the names that `names` gives, read whenever options are listed."""

    names: Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Option:
    """One parameter as a command line needs it. `defaults` has the choice's default by name where `choice` is set;
    `parts` is the field of `Parts` that holds it.
    """

    name: str
    type: type
    help: str
    default: Any
    choices: tuple[str, ...] = ()
    execution: bool = False
    one_of: OneOf | None = None
    choice: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    parts: str = ""

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING


@dataclass_transform(kw_only_default=True, frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make `cls` a frozen keyword-only dataclass whose types and bounds pydantic checks.

    A method `check(self)` of the class runs last, for rules that join several fields.

    Whole numbers are at most 2³¹ − 1 (LARGEST), or as the field says.

    Raises (when an instance is made): UserError naming the field, its requirement and the value.
    """
    if "check" in vars(cls):
        cls.__post_init__ = lambda self: self.check()  # pyright: ignore[reportAttributeAccessIssue]
    config = pydantic.ConfigDict(allow_inf_nan=False, extra="forbid")
    made: Any = validated(cls, frozen=True, kw_only=True, config=config)
    validate = made.__init__

    def construct(self: Any, **values: Any) -> None:
        try:
            validate(self, **values)
        except pydantic.ValidationError as error:
            raise UserError(sentence(error, known=[field.name for field in dataclasses.fields(made)])) from None
        for name, value in vars(self).items():
            if isinstance(value, int) and value > LARGEST:
                raise UserError(f"{name} must be at most {LARGEST}; it is {value if value < 10**30 else 'far more'}.")

    made.__init__ = construct
    return made


def sentence(error: pydantic.ValidationError, *, place: str = "", known: Collection[str] = ()) -> str:
    """The first mistake that pydantic found: field, requirement and value.

    `place` says where the field stands; `known` lists the fields that there are, for the sentence on an unknown one.
    """
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":  # from `check`, which names the fields itself
        return str(first.get("ctx", {}).get("error"))
    name = ".".join(map(str, first["loc"])) + place
    if first["type"] in ("missing", "missing_argument"):
        return f"{name} is required."
    if "unexpected" in first["type"]:
        return unknown(name, known)
    requirement = first["msg"].replace("Input should be", "must be").replace("Input should have", "must have")
    return f"{name} {requirement}; it is {first['input']!r}."


def names_in(text: str) -> list[str]:
    """The names in a text, separated by commas; none where it is empty or "none"."""
    return [] if text == "none" else [name for part in text.split(",") if (name := part.strip())]


def chosen_names(field: str, text: str, known: Collection[str]) -> list[str]:
    """The names in a text, each once. Raises: UserError for one that is not known."""
    names = list(dict.fromkeys(names_in(text)))
    if strange := [name for name in names if name not in known]:
        raise UserError(f"{field} must be none or some of {', '.join(known)}; one is {strange[0]!r}.")
    return names


def unknown(name: str, known: Collection[str]) -> str:
    """The sentence on a name that is none of the known ones; it gives the nearest, or all where none is near."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f"{name} is not known; the nearest is {near[0]}."
    return f"{name} is not known; known are {', '.join(known)}." if known else f"{name} is not known here."


def options(cls: type) -> Iterator[Option]:
    """The parameters of a settings class in the order of its fields; after a `OneOf` field, those of its choices."""
    hints = get_type_hints(cls, include_extras=True)
    for declared in dataclasses.fields(cls):
        base, *extras = (
            get_args(hints[declared.name]) if get_origin(hints[declared.name]) is Annotated else [hints[declared.name]]
        )
        if get_origin(base) in (Union, types.UnionType):
            base = next(kind for kind in get_args(base) if kind is not types.NoneType)
        if parts := next((extra for extra in extras if isinstance(extra, Parts)), None):
            for name, kind in parts.classes().items():
                for one in options(kind):
                    yield Option(
                        name=f"{name}.{one.name}",
                        type=one.type,
                        help=one.help,
                        default=None,
                        choices=one.choices,
                        parts=declared.name,
                    )
            continue
        one_of = next((extra for extra in extras if isinstance(extra, OneOf)), None)
        names = next((extra.names() for extra in extras if isinstance(extra, Choice)), ())
        choices = tuple(one_of.choices() if one_of else get_args(base) if get_origin(base) is Literal else names)
        yield Option(
            name=declared.name,
            type=str if choices else base,
            help=next((extra for extra in extras if isinstance(extra, str)), ""),
            default=one_of.name_of(declared.default) if one_of else declared.default,
            choices=choices,
            execution=EXECUTION in extras,
            one_of=one_of,
        )
        if one_of:
            own = list(_own_options(declared.name, one_of.choices()))
            assert not {option.name for option in own} & hints.keys(), "a choice's fields need names of their own"
            yield from own


def _own_options(choice: str, kinds: Mapping[str, type]) -> Iterator[Option]:
    """The parameters of the classes that the field `choice` chooses from, each name once."""
    found: dict[str, Option] = {}
    for kind, cls in kinds.items():
        for option in options(cls):
            known = found.get(option.name, dataclasses.replace(option, choice=choice))
            choices = tuple(dict.fromkeys((*known.choices, *option.choices)))
            defaults = {**known.defaults, kind: option.default}
            found[option.name] = dataclasses.replace(known, choices=choices, defaults=defaults)
    yield from found.values()


def unread(known: Iterable[Option], kind: type) -> list[str]:
    """Which of the known parameters do not decide the result where the settings class `kind` is chosen: all but those
    that its class attribute `reads` names; none where it has no such attribute, or None.
    """
    reads = getattr(kind, "reads", None)
    if reads is None:
        return []
    return [one.name for one in known if not (one.execution or one.one_of or one.choice or one.name in reads)]


def parse(cls: type[T], values: Mapping[str, Any], *, preset: Mapping[str, Any] | None = None) -> T:
    """The settings that flat values ask for. What they leave out comes from `preset` (left out: the one of the class'
    PRESETS that the values name), as far as the choices made have and read it, else from the defaults.

    Raises: UserError naming the field, its requirement and the value; for a misspelled name, the nearest one; for
    a field of another choice, the choices that have it.
    """
    if preset is None:
        preset = getattr(cls, "PRESETS", {}).get(str(values.get("preset")))
    known, wanted = list(options(cls)), {**(preset or {}), **values}
    choice_of = {option.name: option.choice for option in known}
    if strange := next((name for name in values if name not in choice_of), None):
        raise UserError(unknown(strange, choice_of))
    given = {name: value for name, value in wanted.items() if not choice_of.get(name)}
    for option in known:
        if option.parts and option.name in given:
            part, _, name = option.name.partition(".")
            given.setdefault(option.parts, {}).setdefault(part, {})[name] = given.pop(option.name)
        if not option.one_of:
            continue
        kinds, chosen = option.one_of.choices(), given.get(option.name, option.default)
        if not isinstance(chosen, str) or chosen not in kinds:
            raise UserError(f"{option.name} must be one of {', '.join(kinds)}; it is {chosen!r}.")
        own: dict[str, Any] = {}
        for one in known:
            if one.choice != option.name:
                continue
            if one.name in values and chosen not in one.defaults:
                raise UserError(
                    f"{one.name} is a parameter of {option.name} {', '.join(one.defaults)}, and {option.name} is "
                    f"{chosen}; leave {one.name} out, or choose one of these."
                )
            if one.name in wanted and chosen in one.defaults:
                own[one.name] = wanted[one.name]
        ignored = unread(known, kinds[chosen])
        given = {name: value for name, value in given.items() if name in values or name not in ignored}
        given[option.name] = parse(kinds[chosen], own)
    return cls(**given)


def flat(instance: Any) -> dict[str, Any]:
    """The settings as flat values, as `parse` takes them."""
    values: dict[str, Any] = {}
    for option in options(type(instance)):
        if option.choice:
            continue
        if option.parts:
            part, _, name = option.name.partition(".")
            given = getattr(instance, option.parts).get(part, {})
            values |= {option.name: given[name]} if name in given else {}
            continue
        value = getattr(instance, option.name)
        values[option.name] = option.one_of.name_of(value) if option.one_of else value
        if option.one_of:
            values |= flat(value)
    return values


def deciding(instance: Any) -> dict[str, Any]:
    """The flat values that decide a stage's result: all but those marked EXECUTION."""
    execution = {option.name for option in options(type(instance)) if option.execution}
    return {name: value for name, value in flat(instance).items() if name not in execution}


def fingerprint(content: Mapping[str, Any]) -> str:
    """A short hash of everything that decides a result: deciding settings and digests of what they are applied to."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def short(name: str) -> str:
    """What tells a file, a folder or an address from others, for a title: `onnx:/models/w600k_r50.onnx` → w600k_r50."""
    last = name.replace(":", "/").rstrip("/").rpartition("/")[2]
    return last.rpartition(".")[0] or last


def output_folder(stage: str, chosen: str, name: str) -> Path:
    """Where a stage writes: the folder that the user chose, else outputs/STAGE/FINGERPRINT, which the same command
    finds again.
    """
    return Path(chosen) if chosen else Path("outputs") / stage / name
