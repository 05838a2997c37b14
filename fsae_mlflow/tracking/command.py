"""A settings class and a function become a command line whose every call is an MLflow run."""

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from fsae_mlflow.parameters import Option, options
from fsae_mlflow.tracking.signals import reason_of, terminable

if TYPE_CHECKING:
    from fsae_mlflow.tracking.runs import Run


def command(settings_class: type, *, stage: str) -> Callable[[Callable[[Any, "Run"], None]], click.Command]:
    """Make `function(settings, run)` a click command with one option a field of `settings_class`.

    Underscores stay in option names, so `mlflow run -P batch_size=8` and `--batch_size 8` are one spelling. An empty
    value means "not given". Where the class has PRESETS, what is not given comes from the chosen preset. A user's
    mistake (ValueError) ends as one sentence and a non-zero exit code; the run ends FAILED or KILLED with the reason as
    a tag.
    """

    def decorate(function: Callable[[Any, "Run"], None]) -> click.Command:
        @click.pass_obj
        def callback(settings: Any, **_: Any) -> None:
            _log_to_stderr()
            try:
                with terminable():
                    # MLflow takes seconds to import, which `--help` and a usage error need not wait for.
                    from fsae_mlflow.tracking.runs import attached_run

                    with attached_run(settings, stage=stage) as run:
                        function(settings, run)
            except (ValueError, OSError, FloatingPointError) as error:
                if os.environ.get("FSAE_TRACEBACK"):
                    raise
                raise click.ClickException(" ".join(str(error).split())) from error
            except KeyboardInterrupt as interrupt:
                _end_waiting_run("KILLED", reason_of(interrupt))
                click.echo(f"{stage}: {reason_of(interrupt)}.", err=True)
                sys.exit(130)

        parameters: list[click.Parameter] = [_click_option(option) for option in options(settings_class)]
        return StageCommand(settings_class, stage, params=parameters, callback=callback, help=function.__doc__)

    return decorate


class StageCommand(click.Command):
    """A command that builds its settings while parsing, so that a refused value is a usage error, noted on the run."""

    def __init__(self, settings_class: type, name: str, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.settings_class = settings_class

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, args)
            given = {name: value for name, value in ctx.params.items() if _is_given(ctx, name, value)}
            preset = getattr(self.settings_class, "PRESETS", {}).get(given.get("preset"), {})
            try:
                ctx.obj = self.settings_class(**(preset | given))
            except ValueError as error:
                raise click.UsageError(str(error), ctx) from error
        except click.UsageError as error:
            _end_waiting_run("FAILED", error.format_message())
            raise
        return rest


class _OrEmpty(click.ParamType):
    """Another type that also takes the empty string, by which MLproject says "not given"."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "" else self.inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self.inner.get_metavar(param, ctx)


def _click_option(option: Option) -> click.Option:
    inner = click.Choice(option.choices) if option.choices else click.types.convert_type(option.type)
    return click.Option(
        [f"--{option.name}"],
        type=inner if option.type is str and not option.choices else _OrEmpty(inner),
        required=option.required,
        default=None if option.required else option.default,
        show_default=option.default not in ("", None),
        help=option.help,
    )


def _is_given(context: click.Context, name: str, value: Any) -> bool:
    return value is not None and value != "" and context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _end_waiting_run(status: str, reason: str) -> None:
    if "MLFLOW_RUN_ID" in os.environ:
        from fsae_mlflow.tracking.runs import end_waiting_run

        end_waiting_run(status, reason)


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fsae_mlflow").setLevel(logging.INFO)
