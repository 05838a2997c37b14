"""The Markdown description of a run, which the MLflow UI shows on the run's page."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fsae_mlflow.tracking.groups import main_metrics

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

NOTE_TAG = "mlflow.note.content"
WIDEST_LINE = 76
"""Characters of a line of code: a longer one would push the right column of the run's page off the screen."""

MOST_WARNINGS = 5
MARKUP = re.compile(r"([\\`*_\[\]<>|])")


@dataclass(frozen=True)
class Call:
    """How a stage was called: what it does, in a sentence, and the parameters that were given.

    `entry` is the entry point that repeats it, where that is not the stage itself.
    """

    about: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    entry: str = ""


@dataclass(frozen=True, kw_only=True)
class Input:
    """What a run has read: where it came from, its digest, and the page of the run that made it, if one is known.

    `again` names the same thing for the command that repeats the run.
    """

    origin: str
    digest: str
    again: str
    run_id: str = ""
    run_name: str = ""
    experiment_id: str = ""

    @classmethod
    def of_run(cls, info: "RunInfo", digest: str = "") -> "Input":
        """A run as a whole, which made what has this digest."""
        origin = f"runs:/{info.run_id}"
        return cls(
            origin=origin,
            digest=digest,
            again=origin,
            run_id=info.run_id,
            run_name=info.run_name or info.run_id,
            experiment_id=info.experiment_id,
        )


def page_of(experiment_id: str, run_id: str) -> str:
    """The address of a run's page, from the UI's root; the training view has the model registry."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def describe_run(
    *,
    run_id: str,
    stage: str,
    call: Call,
    inputs: Mapping[str, Input],
    metrics: Mapping[str, float] | None = None,
    warnings: Sequence[str] = (),
    headline: str = "",
    picture: str = "",
    full: str = "",
) -> str:
    """What the stage did, the picture that matters, its main metrics, its warnings, the inputs, and the command that
    repeats it.
    """
    parts = [call.about]
    parts += [f"**{headline}**"] if headline else []
    if picture:  # MLflow shows the beginning of a long description, and the rest on demand
        shown = f"![{picture}](get-artifact?path={picture}&run_uuid={run_id})"
        parts.append(f"[{shown}](get-artifact?path={full}&run_uuid={run_id})" if full else shown)
    if rows := [f"| `{name}` | &emsp;{value:.4g} |" for name, value in main_metrics(metrics or {}).items()]:
        parts.append("\n".join(["| metric | &emsp;value |", "|---|---|", *rows]))
    if warnings:
        parts.append("\n".join(["Warnings:", "", *(f"- {_plain(one)}" for one in warnings[:MOST_WARNINGS])]))
        parts[-1] += f"\n- and {len(warnings) - MOST_WARNINGS} more" if len(warnings) > MOST_WARNINGS else ""
    if inputs:
        parts.append("\n".join(["Made from:", "", *(_line(name, one) for name, one in inputs.items())]))
    parts.append("Repeat it with:\n\n```\n" + "\n".join(commands(stage, call, inputs)) + "\n```")
    return "\n\n".join(part for part in parts if part)


def unfinished(description: str, reason: str) -> str:
    """The description of a run that ended early, for this reason."""
    return f"**Not finished:** {' '.join(reason.split())}\n\n{description}"


def commands(stage: str, call: Call, inputs: Mapping[str, Input]) -> tuple[str, str]:
    """The two command lines that repeat a run: as an MLflow project, and as a Python module.

    They have the parameters that were given, and of inputs what these were at the time: no `latest`.
    """
    stage = call.entry or stage
    given = {name: one.again for name, one in inputs.items() if "." not in name}
    given |= {name: str(value) for name, value in call.given.items() if name not in given}
    project = [f"mlflow run . -e {stage} --env-manager local"]
    project += [shlex.join(("-P", f"{name}={value}")) for name, value in given.items()]
    module = [f"python -m entrypoints.{stage}"]
    module += [shlex.join((f"--{name}", value)) for name, value in given.items()]
    return _wrapped(project), _wrapped(module)


def _wrapped(parts: Sequence[str]) -> str:
    """A command line, continued on further lines where it is long."""
    first, *more = parts
    lines = [first]
    for part in more:
        if len(f"{lines[-1]} {part}") > WIDEST_LINE:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    return MARKUP.sub(r"\\\1", text)


def _line(name: str, one: Input) -> str:
    source = f"[{one.run_name}]({page_of(one.experiment_id, one.run_id)})" if one.run_id else f"`{one.origin}`"
    return f"- {name}: {source}" + (f", digest `{one.digest}`" if one.digest else "")
