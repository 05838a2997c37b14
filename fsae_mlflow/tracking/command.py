"""Command lines: a settings class and a function become a click command, and each call of it is an MLflow run."""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
from click.core import ParameterSource

from fsae_mlflow.errors import UserError
from fsae_mlflow.parameters import Option, options, parse
from fsae_mlflow.tracking.description import Call
from fsae_mlflow.tracking.process.environment import set_defaults
from fsae_mlflow.tracking.process.killed import keep_killed
from fsae_mlflow.tracking.process.signals import interrupt_behind, reason_of, terminable

BUG = "{stage}: this is a bug of fsae_mlflow; please report it in the project's issue tracker, with all lines above."

GIVEN = "fsae_mlflow.given"
# Click gives values to Python names only: `train_sae.k` is train_sae__k there.
PART = "__"

# What decides how much memory a stage takes on a GPU.
MEMORY_PARAMETERS = ("batch_size", "images_at_once", "expansion", "expansions")


def command(
    settings_class: type, *, stage: str, tracked: bool = True
) -> Callable[[Callable[[Any, Any], None]], click.Command]:
    """Make `function(settings, run)` a click command with one option per parameter of `settings_class`.

    Option names keep their underscores, so that `mlflow run -P batch_size=8` and `--batch_size 8` are spelled alike.
    An empty value means "not given". Where the class has PRESETS, values that are not given come from the chosen
    preset. A user's mistake (UserError, OSError, too little memory on the GPU) is printed as one sentence, with a
    non-zero exit code; the run ends FAILED or KILLED, with the reason as a tag. FSAE_TRACEBACK=1 in the environment
    prints the traceback instead. Any other exception is a bug: its traceback is printed, with a line that says so. Exit
    codes: 1 a mistake or a bug, 2 a refused parameter, 3 all is on disk but not on the tracking server, 130 stopped.

    A command that is not `tracked` has no run of its own; its function gets None for it.
    """

    def decorate(function: Callable[[Any, Any], None]) -> click.Command:
        @click.pass_context
        def callback(context: click.Context, **_: Any) -> None:
            settings, about = context.obj, (function.__doc__ or "").partition("\n")[0]
            _log_to_stderr()
            set_defaults()
            waiting = os.environ.get("MLFLOW_RUN_ID")  # it is gone after the run
            try:
                with terminable():
                    # MLflow takes seconds to import; `--help` and usage errors do not need it.
                    if not tracked:
                        function(settings, None)
                        return
                    from fsae_mlflow.tracking.runs.lifecycle import attached_run

                    call = Call(about=about, given=_set_apart(settings_class, context.meta[GIVEN]))
                    with attached_run(settings, stage=stage, call=call) as run:
                        function(settings, run)
            except BaseException as error:
                interrupt = interrupt_behind(error)
                if interrupt is not None:
                    if error is not interrupt:
                        click.echo(f"{stage}: {' '.join(str(error).split()) or type(error).__name__}", err=True)
                    _end_waiting_run("KILLED", reason_of(interrupt))
                    if waiting:
                        keep_killed(waiting)
                    click.echo(f"{stage}: {reason_of(interrupt)}.", err=True)
                    sys.exit(130)
                if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported here
                    error = _out_of_memory(error, settings_class)
                if not isinstance(error, UserError | OSError):
                    if isinstance(error, Exception):
                        error.add_note(BUG.format(stage=stage))
                    raise
                if os.environ.get("FSAE_TRACEBACK"):
                    raise
                refusal = click.ClickException(" ".join(str(error).split()))
                refusal.exit_code = getattr(error, "exit_code", 1)  # pyright: ignore[reportAttributeAccessIssue]
                raise refusal from error

        return StageCommand(settings_class, stage, callback=callback, help=function.__doc__)

    return decorate


def _set_apart(settings_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values that differ from what the parameters would be without them."""
    defaults = {option.name: option.default for option in options(settings_class) if not option.choice}
    defaults |= getattr(settings_class, "PRESETS", {}).get(given.get("preset"), {})
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}


def _out_of_memory(error: BaseException, settings_class: type) -> UserError:
    names = [option.name for option in options(settings_class) if option.name in MEMORY_PARAMETERS]
    lower = f"lower {' or '.join(names)}, or " if names else ""
    first = str(error).partition(". ")[0]
    told = UserError(f"The GPU's memory is too small for this ({first}); {lower}give device=cpu.")
    told.__cause__ = error
    return told


class StageCommand(click.Command):
    """A command that builds its settings while it parses: a refused value is a usage error, and the run notes it."""

    def __init__(self, settings_class: type, name: str, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.settings_class = settings_class

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        # Read at each call, because a variant can be registered after the command is made.
        return [*map(_click_option, options(self.settings_class)), *super().get_params(ctx)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        required = [one.name for one in options(self.settings_class) if one.required and not one.choice]
        if len(required) == 1 and args and not args[0].startswith("-"):
            args = [f"--{required[0]}", *args]  # the only one that is required needs no name
        try:
            rest = super().parse_args(ctx, args)
            given = {name: value for name, value in ctx.params.items() if _is_given(ctx, name, value)}
            given = {name.replace(PART, "."): value for name, value in given.items()}
            ctx.meta[GIVEN] = given
            try:
                ctx.obj = parse(self.settings_class, given)
            except UserError as error:
                raise click.UsageError(str(error), ctx) from error
        except click.UsageError as error:
            _end_waiting_run("FAILED", error.format_message(), name=f"{self.name} (refused)")
            raise
        return rest


class _OrEmpty(click.ParamType):
    """A type that also accepts the empty string, which in MLproject means "not given"."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "" else self.inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self.inner.get_metavar(param, ctx)


def _click_option(option: Option) -> click.Option:
    inner = click.Choice(option.choices) if option.choices else click.types.convert_type(option.type)
    default, text = option.default, option.help
    if option.choice:
        text += f" ({option.choice} {', '.join(option.defaults)})"
        if any(value != default for value in option.defaults.values()):
            shown = (f"{value} ({kind})" for kind, value in option.defaults.items() if value is not dataclasses.MISSING)
            default, text = dataclasses.MISSING, f"{text}  [default: {', '.join(shown)}]"
    return click.Option(
        [option.name.replace(".", PART), f"--{option.name}"],
        hidden=bool(option.parts),
        type=inner if option.type is str and not option.choices else _OrEmpty(inner),
        required=option.required and not option.choice,
        default=None if default is dataclasses.MISSING else default,
        show_default=default not in ("", None),
        help=text,
    )


def _is_given(context: click.Context, name: str, value: Any) -> bool:
    return value is not None and value != "" and context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _end_waiting_run(status: str, reason: str, *, name: str = "") -> None:
    if "MLFLOW_RUN_ID" in os.environ:
        from mlflow.exceptions import MlflowException

        from fsae_mlflow.tracking.runs.lifecycle import end_waiting_run

        try:
            end_waiting_run(status, reason, name=name)
        except MlflowException as error:
            # What ended the command is still to be said.
            logging.getLogger(__name__).warning("The run could not be ended: %s", error)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fsae_mlflow").setLevel(logging.INFO)
