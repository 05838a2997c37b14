"""The files of an audit: audit.csv, audit.md, audit_features.csv and audit_readings.csv."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.report.tables import probability, write_csv
from fsae_mlflow.verification.audit.fired import FiredFeatures, Found
from fsae_mlflow.verification.audit.groups import FEWEST_ERRORS, FEWEST_GENUINE, FEWEST_PEOPLE, Errors, Group

N_SHOWN = 10
MAX_Q = 0.05
HEADER = (
    "attribute", "has", "n_people",
    "n_impostor", "n_false_matches", "fmr", "fmr_low", "fmr_high",
    "n_genuine", "n_false_non_matches", "fnmr", "fnmr_low", "fnmr_high",
    "own_threshold", "fmr_at_own", "fnmr_at_own", "remark",
)  # fmt: skip
COLUMNS = (
    "Group",
    "People",
    "Impostor pairs",
    "FMR",
    "95 % interval",
    "Genuine pairs",
    "FNMR",
    "95 % interval",
    "Own threshold",
    "FMR at it",
    "FNMR at it",
)


@dataclass(frozen=True, kw_only=True)
class Common:
    """What wrong decisions have in common: of pairs of one person (`genuine`: false non-matches) or of different people
    (false matches). `found`: features and readings, None with too few wrong decisions, or too few right ones.
    """

    genuine: bool
    errors: Errors
    found: tuple[Found, Found] | None

    @property
    def name(self) -> str:
        """The kind of wrong decision."""
        return "false non-match" if self.genuine else "false match"


def write_audit(
    groups: Sequence[Group], common: Sequence[Common], fired: FiredFeatures | None, folder: Path
) -> list[Path]:
    """Write audit.md and audit.csv, and where features were audited audit_features.csv and audit_readings.csv."""
    with atomic_write(folder / "audit.md") as temporary:
        temporary.write_text("\n".join(_markdown(groups, common, fired)) + "\n", encoding="utf-8")
    written = [folder / "audit.md", write_csv(folder / "audit.csv", [HEADER, *map(_values, groups)])]
    if fired is None:
        return written
    measures = ["in_wrong", "in_others", "lift", "p", "q"]
    features, readings = [], []
    for one in common:
        if one.found is None:
            continue
        of_features, of_readings = one.found
        for found, lines, more in (
            (of_features, features, fired.sentences[of_features.names]),
            (of_readings, readings, [int((fired.kinds == name).sum()) for name in of_readings.names]),
        ):
            columns = [found.names, more, *(getattr(found, name) for name in measures)]
            lines += [[one.name, *(column[place] for column in columns)] for place in found.order]
    return [
        *written,
        write_csv(folder / "audit_features.csv", [["error", "feature", "reading", *measures], *features]),
        write_csv(folder / "audit_readings.csv", [["error", "reading", "n_features", *measures], *readings]),
    ]


def _values(group: Group) -> list[object]:
    """A line of audit.csv; what is not given is empty."""
    impostor, genuine = group.impostor, group.genuine
    rates = _given([impostor.rate, *impostor.interval], group.has_fmr)
    others = _given([genuine.rate, *genuine.interval], group.has_fnmr)
    return [
        *(group.attribute or "all pairs", int(group.has) if group.attribute else "", group.n_people),
        *(impostor.n, impostor.n_wrong, *rates, genuine.n, genuine.n_wrong, *others),
        *_given([group.threshold, group.impostor_own.rate], group.has_own),
        *_given([group.genuine_own.rate], group.has_own and group.has_fnmr),
        group.remark,
    ]


def _given(values: Sequence[float], known: bool) -> list[object]:
    return [value if known and not math.isnan(value) else "" for value in values]


def _markdown(groups: Sequence[Group], common: Sequence[Common], fired: FiredFeatures | None) -> Iterator[str]:
    overall = groups[0]
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "| --- |" + " ---: |" * (len(COLUMNS) - 1)
    for group in groups:
        yield "| " + " | ".join(_cells(group)) + " |"
    yield ""
    if not overall.has_fmr:
        yield (
            f"A rate at FAR {overall.far:g} needs at least {FEWEST_ERRORS / overall.far:,.0f} impostor pairs, and here "
            f"are {overall.impostor.n:,}: give more pairs (pairs, or a larger pairs_per_fold), or a larger far.\n"
        )
    yield (
        "Original templates. FMR: share of impostor pairs accepted; FNMR: share of genuine pairs not accepted. Each "
        "fold is decided at the threshold that the impostor pairs of the other folds give at FAR "
        f"{overall.far:g}, and at the group's own threshold, for which only the group's impostor pairs of the other "
        "folds are taken. The threshold in the table is that of all folds (a squared distance; smaller ones are "
        "accepted). A pair is of a group where both faces are, each by its own label; pairs with a face of each kind, "
        "or with an unlabeled face, are of neither. Wilson intervals take pairs for independent, and are somewhat too "
        f"narrow where pairs share faces. There is no FMR where fewer than {FEWEST_ERRORS} false matches are to be "
        f"expected, no FNMR of fewer than {FEWEST_GENUINE} genuine pairs, and neither of fewer than {FEWEST_PEOPLE} "
        "people."
    )
    for one in common:
        yield ""
        yield from _in_common(one, fired) if fired is not None else ()


def _cells(group: Group) -> list[str]:
    known, own = group.has_fmr, group.has_own
    return [
        group.name,
        f"{group.n_people:,}",
        f"{group.impostor.n:,}",
        f"{group.impostor.rate:.4f}" if known else group.lacks,
        _interval(group.impostor) if known else "",
        f"{group.genuine.n:,}",
        f"{group.genuine.rate:.4f}" if group.has_fnmr else group.lacks,
        _interval(group.genuine) if group.has_fnmr else "",
        f"{group.threshold:.3f}" if own else "",
        f"{group.impostor_own.rate:.4f}" if own else "",
        f"{group.genuine_own.rate:.4f}" if own and group.has_fnmr else "",
    ]


def _interval(errors: Errors) -> str:
    low, high = errors.interval
    return f"{low:.4f} … {high:.4f}"


def _in_common(one: Common, fired: FiredFeatures) -> Iterator[str]:
    yield f"## What {one.name}es have in common"
    yield ""
    counts = "exactly one face fires it" if one.genuine else "both faces fire it"
    if one.found is None:
        yield (
            f"There are {one.errors.n_wrong:,} among {one.errors.n:,} pairs: too few errors, or too few right "
            "decisions, to say what they have in common; give more pairs, or another far."
        )
        return
    features, readings = one.found
    n_features, n_readings = (int((found.q < MAX_Q).sum()) for found in one.found)
    yield (
        f"{one.errors.n_wrong:,} of {one.errors.n:,} pairs. A feature counts in a pair where {counts}. "
        f"{n_features:,} of {len(features.names):,} features, and {n_readings:,} of {len(readings.names):,} readings, "
        f"count more often in them than in the others (q < {MAX_Q:g}). The median lift of all features is "
        f"{np.median(features.lift):.2f}."
    )
    for heading, found, more in (
        (("Reading", "Features"), readings, lambda name: f"{(fired.kinds == name).sum():,}"),
        (("Feature", "What it means"), features, lambda name: fired.sentences[name]),
    ):
        strongest = [place for place in found.order if found.q[place] < MAX_Q][:N_SHOWN]
        if not strongest:
            continue
        unit = "share of pairs" if heading[0] == "Feature" else "its features in a pair"
        yield ""
        yield f"| {heading[0]} | {heading[1]} | {unit}: {one.name}es | the others | lift | p | q |"
        yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
        for place in strongest:
            cells = [
                str(found.names[place]).replace("_", " "),
                more(found.names[place]),
                f"{found.in_wrong[place]:.4f}",
                f"{found.in_others[place]:.4f}",
                f"{found.lift[place]:.2f}" if np.isfinite(found.lift[place]) else "∞",
                probability(float(found.p[place])),
                probability(float(found.q[place])),
            ]
            yield "| " + " | ".join(cells) + " |"
