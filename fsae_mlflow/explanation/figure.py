"""An explanation in words and pictures: what the figure says, the maps on both faces, and the features' top faces."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image

from fsae_mlflow.explanation.faces import Chosen, Face
from fsae_mlflow.explanation.faithfulness.deletion import SHARES, UP_TO, Deletion
from fsae_mlflow.explanation.results import Explanation, FeaturePart
from fsae_mlflow.explanation.saliency import Embed, saliency_maps
from fsae_mlflow.explanation.settings import ExplainSettings
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.features.table import Description
from fsae_mlflow.report.explanations.deletion import deletion_figure
from fsae_mlflow.report.explanations.pair import N_FACES, ExplanationSheet, FeatureRow, Scale, draw_explanation, overlay
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet

UNREAD = ("unread", "not read")


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Where pictures come from: maps through `embed` and the SAE, top faces of `description` from the set `shown`.

    `cosines` and `genuine`: the given pairs, on whose scale the pair is shown. `named`: the features that `without`
    names, in words.
    """

    settings: ExplainSettings
    sae: SparseAutoencoder
    embed: Embed | None
    description: Description | None
    shown: TemplateSet | None
    cosines: Float64[np.ndarray, " pairs"]
    genuine: Bool[np.ndarray, " pairs"]
    named: str


def draw(explanation: Explanation, chosen: Chosen, looks: Looks, path: Path) -> Path:
    """Draw the figure of an explanation."""
    settings = looks.settings
    adding, taking = explanation.shared(settings.n_shared), explanation.opposing(settings.n_opposing)
    parts = [*adding, *taking]
    maps = [
        _maps(face, [part.feature for part, on in zip(parts, fires, strict=True) if on > 0], looks)
        for face, fires in zip(chosen.faces, ([p.first for p in parts], [p.second for p in parts]), strict=True)
    ]
    rows = [
        FeatureRow(
            value=part.contribution,
            name=f"feature {part.feature}",
            **_reading(part),
            maps=(maps[0].get(part.feature), maps[1].get(part.feature)),
            top=_top_faces(part.feature, looks),
        )
        for part in parts
    ]
    sheet = ExplanationSheet(
        title=_title(explanation),
        subtitle=_subtitle(explanation),
        faces=(chosen.faces[0].picture, chosen.faces[1].picture),
        names=(explanation.first, explanation.second),
        scale=Scale(
            similarity=explanation.similarity,
            threshold=explanation.threshold.cosine,
            cosines=looks.cosines,
            genuine=looks.genuine,
        ),
        adding=rows[: len(adding)],
        taking=rows[len(adding) :],
        sums=_sums(explanation, parts),
        closing=_closing(explanation, looks.named),
        maps_heading="where it looks on either face" if looks.embed else "",
        top_heading="faces that fire it most" if any(row.top for row in rows) else "",
    )
    return draw_explanation(sheet, path)


def draw_deletion(tried: Deletion, path: Path) -> Path:
    """Draw how fast the similarity falls when features are switched off in the order of the explanation, and others."""
    panels = {}
    for kind, mask in (("one person", tried.genuine), ("two people", ~tried.genuine)):
        if mask.any():
            curves = {f"by {name}, largest first": curve[mask].mean(axis=0) for name, curve in tried.curves.items()}
            curves["at random"] = curves.pop("by random, largest first")
            panels[f"{int(mask.sum()):,} pairs of {kind}"] = curves
    return deletion_figure(panels, SHARES, path, up_to=UP_TO)


def _title(told: Explanation) -> str:
    decision = "accepted as one person" if told.accepted else "rejected as two people"
    if told.genuine is None:
        return f"Similarity {_plain(told.similarity)}: {decision}"
    right = "rightly" if told.genuine == told.accepted else "wrongly"
    return f"Similarity {_plain(told.similarity)}: {right} {decision}"


def _subtitle(told: Explanation) -> str:
    limit, decoded = told.threshold, told.decoded_threshold.cosine
    alone = "accepted" if told.decoded > decoded else "rejected"
    return (
        f"Pairs are accepted above {_plain(limit.cosine)}: {100 * limit.far:.2g} % of {limit.n_impostors:,} "
        f"pairs of two people and {100 * limit.tar:.3g} % of {limit.n_genuine:,} pairs of one person. From the "
        f"SAE's features alone the similarity is {_plain(told.decoded)}: {alone} (threshold {_plain(decoded)})."
    )


def _reading(part: FeaturePart) -> dict[str, str]:
    """What is read first, and the rest; a reading's parts are divided by semicolons outside parentheses."""
    first, *rest = re.split(r"; (?![^(]*\))", part.reading.rstrip("."))
    first = f"Resembles {first[0].lower()}{first[1:]}" if first.startswith("Person ") else first
    return {"reading": "" if first in UNREAD else first, "more": "; ".join(rest)}


def _sums(told: Explanation, shown: Sequence[FeaturePart]) -> list[tuple[str, float]]:
    """The parts of the similarity; the features that have a row of their own are one of them."""
    numbers = {part.feature for part in shown}
    rest = [part.contribution for part in told.features if part.feature not in numbers]
    of_shown = [(f"the {len(shown)} features shown", sum(part.contribution for part in shown))]
    adding, taking = [value for value in rest if value > 0], [value for value in rest if value <= 0]
    features = [
        (f"{len(values)} other feature{'s' if len(values) > 1 else ''} that {verb}", sum(values))
        for values, verb in ((adding, "add"), (taking, "take away"))
        if values
    ]
    return [
        *of_shown,
        *features,
        ("what all decoded templates have in common", told.constant),
        ("what the SAE leaves unexplained", told.unexplained),
    ]


def _closing(told: Explanation, named: str) -> str:
    """What the counterfactual says; `named`: the features that `without` names, in words."""
    if not told.counterfactual:
        return f"Neither face fires a feature of: {named}." if named else ""
    last = told.counterfactual[-1]
    n = len(last.features)
    which = f"the {n} feature{'s' * (n > 1)} of {named} that fire here" if named else f"the {n} features that add most"
    cosine, before, again, limit = (
        _plain(value) for value in (last.cosine, told.decoded, last.read_again, told.decoded_threshold.cosine)
    )
    sentence = (
        f"Switched off: without {which}, the similarity of the decoded templates is {cosine} in place of {before} "
        f"({again} when the changed templates are encoded and decoded again)."
    )
    if told.n_until_rejected:
        sentence += (
            f" After the first {told.n_until_rejected} it falls below {limit}, the threshold of decoded templates."
        )
    return sentence


def _plain(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _maps(face: Face, features: list[int], looks: Looks) -> dict[int, Image.Image]:
    """The face with the map of each feature that it fires; none without a recognizer."""
    if looks.embed is None or not features:
        return {}
    maps = saliency_maps(
        to_float(np.stack([np.asarray(face.picture)]))[0].to(looks.sae.W_dec.device),
        features,
        embed=looks.embed,
        sae=looks.sae,
        noise=looks.settings.noise,
        n_copies=looks.settings.n_copies,
        seed=looks.settings.seed,
    )
    return {feature: overlay(face.picture, heat) for feature, heat in zip(features, maps.numpy(), strict=True)}


def _top_faces(feature: int, looks: Looks) -> list[Image.Image]:
    if looks.description is None or looks.shown is None:
        return []
    rows, _ = looks.description.activity.top_of(feature)
    return looks.shown.faces(rows[:N_FACES])
