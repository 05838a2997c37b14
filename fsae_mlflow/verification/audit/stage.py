"""The audit of a verification: error rates by attribute, and what wrong decisions have in common."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from fsae_mlflow.errors import UserError
from fsae_mlflow.features.labels.attributes import read_attributes
from fsae_mlflow.report.verification.audit import AuditLine, Share, audit_figure
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.audit.fired import FiredFeatures, over_represented
from fsae_mlflow.verification.audit.groups import Decisions, Errors, Group, audit_groups
from fsae_mlflow.verification.audit.tables import Common, write_audit
from fsae_mlflow.verification.pairs import RowPairs
from fsae_mlflow.verification.settings import EvaluateSettings

FEWEST_WRONG = 10


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Error rates of all pairs (the first group) and of each group, and the files written."""

    groups: list[Group]
    files: list[Path] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """The rates of all pairs, the largest of a group, and the number of groups with and without rates."""
        overall, *groups = self.groups
        fmr = [one.impostor.rate for one in groups if one.has_fmr]
        fnmr = [one.genuine.rate for one in groups if one.has_fnmr]
        return {
            "audit/fmr": overall.impostor.rate if overall.has_fmr else math.nan,
            "audit/fnmr": overall.genuine.rate if overall.has_fnmr else math.nan,
            "audit/threshold": overall.threshold,
            "audit/largest_fmr": max(fmr, default=math.nan),
            "audit/largest_fnmr": max(fnmr, default=math.nan),
            "audit/n_groups": float(len(groups)),
            "audit/n_too_small": float(sum(bool(one.remark) for one in groups)),
        }


def audit(
    settings: EvaluateSettings,
    distances: Float64[np.ndarray, " pairs"],
    pairs: RowPairs,
    templates: TemplateSet,
    output: Path,
    *,
    sae: SparseAutoencoder | None = None,
    readings: Mapping[str, np.ndarray] | None = None,
) -> list[Audit]:
    """Audit the decisions on pairs, given their distances, by the faces' labels; none where there are no labels.

    Writes to `output`: audit.csv, audit.md, audit.png, and, where an SAE and its readings are given, audit_features.csv
    and audit_readings.csv.

    Raises: UserError for a file of labels that cannot be read, fits no face, or has no column of 0 and 1.
    """
    if not settings.attributes and not templates.attributes:
        return []
    labels = read_attributes(settings.attributes, templates, fewest=1).booleans
    if not labels:
        if settings.attributes:
            raise UserError(
                f"attributes: {settings.attributes} has numbers, but no column of 0 and 1, which makes two groups to "
                "compare; add such a column, or leave attributes out."
            )
        return []
    _, people = np.unique(templates.identities.astype(str), return_inverse=True)
    groups = audit_groups(distances, pairs, labels, people, far=settings.far)
    common: list[Common] = []
    fired = None
    if sae is not None and readings is not None and groups[0].decided:
        fired = FiredFeatures.of(sae, templates.templates[pairs.rows], readings, batch_size=settings.batch_size)
        accepted = Decisions.of(distances, pairs, np.ones(len(pairs), bool), settings.far).accepted
        for genuine, errors in ((False, groups[0].impostor), (True, groups[0].genuine)):
            few = not FEWEST_WRONG <= errors.n_wrong <= errors.n - FEWEST_WRONG
            found = None if few else over_represented(fired, pairs, accepted != pairs.genuine, genuine=genuine)
            common.append(Common(genuine=genuine, errors=errors, found=found))
    files = write_audit(groups, common, fired, output)
    files.append(_figure(groups, output / "audit.png"))
    return [Audit(groups=groups, files=files)]


def _figure(groups: list[Group], path: Path) -> Path:
    overall, *others = groups
    lines = [
        AuditLine(
            attribute=has.attribute.replace("_", " "),
            fmr=(_share(has, has.impostor, has.has_fmr), _share(lacks, lacks.impostor, lacks.has_fmr)),
            fnmr=(_share(has, has.genuine, has.has_fnmr), _share(lacks, lacks.genuine, lacks.has_fnmr)),
        )
        for has, lacks in zip(others[::2], others[1::2], strict=True)
    ]
    fmr = overall.impostor.rate if overall.has_fmr else math.nan
    fnmr = overall.genuine.rate if overall.has_fnmr else math.nan
    return audit_figure(lines, path, fmr=fmr, fnmr=fnmr, far=overall.far)


def _share(group: Group, errors: Errors, known: bool) -> Share | str:
    if known:
        return Share(errors.rate, *errors.interval)
    return group.lacks
