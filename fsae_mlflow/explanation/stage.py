"""The stage: two faces, or the most telling pairs of a template set → why they match."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fsae_mlflow.explanation.accounts import account, threshold
from fsae_mlflow.explanation.contributions import Contributions, Decoder, contributions
from fsae_mlflow.explanation.faces import Chosen, Face, find_face, telling_pairs
from fsae_mlflow.explanation.faithfulness.deletion import deletion
from fsae_mlflow.explanation.faithfulness.hiding import Hiding, hiding
from fsae_mlflow.explanation.figure import Looks, draw, draw_deletion
from fsae_mlflow.explanation.results import Explanation, Threshold, write_explanation
from fsae_mlflow.explanation.saliency import Embed
from fsae_mlflow.explanation.settings import ExplainSettings
from fsae_mlflow.extraction.writing import templates_of
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.features.activity.survey import encoded
from fsae_mlflow.features.suppression import select_features
from fsae_mlflow.features.table import Description
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.entries import Entries
from fsae_mlflow.templates.rows import evenly_spaced
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.verification.chosen_pairs import choose_pairs
from fsae_mlflow.verification.pairs import RowPairs


@dataclass(frozen=True, kw_only=True)
class Explained:
    """The explanations, the metrics, and the files that were written; `named`: the features of `without`, in words."""

    explanations: list[Explanation]
    metrics: dict[str, float]
    files: list[Path]
    named: str = ""

    @property
    def headline(self) -> str:
        """Of two given faces: the decision, what adds most, and what is left without the features of `named`. Of
        chosen pairs: the mean similarity of all pairs, and how much of it is not explained.
        """
        if len(self.explanations) == 1:
            return "; ".join(self._lines(self.explanations[0]))
        genuine, impostor = (
            f"{self.metrics[f'{kind}/similarity']:.3f} ({self.metrics[f'{kind}/unexplained']:.3f} unexplained)"
            for kind in ("genuine", "impostor")
        )
        return (
            f"{len(self.explanations)} pairs explained; mean similarity {genuine} of one person's faces, {impostor} of "
            "two people's"
        )

    def _lines(self, one: Explanation) -> Iterator[str]:
        decision = "accepted" if one.accepted else "rejected"
        most = (
            f"most by feature {one.features[0].feature} ({one.features[0].reading})" if one.features else "none fires"
        )
        yield f"{one.name}: similarity {one.similarity:.3f}, {decision} at {one.threshold.cosine:.3f}; {most}"
        if self.named and one.counterfactual:
            n, cosine = len(one.counterfactual[0].features), one.counterfactual[0].cosine
            yield f"decoded without {n} features of {self.named}: {cosine:.3f} in place of {one.decoded:.3f}"


def explain(
    settings: ExplainSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    description: Description | None,
    shown: TemplateSet | None,
    recognizer: Recognizer | None,
    output: Path,
    on_metrics: OnMetrics,
) -> Explained:
    """Explain two faces, or else the hardest and the most typical pair of one person and of two people.

    `description`: what describe found of the SAE's features, on the faces of `shown` where it is given. `recognizer`:
    that of the templates, for maps and for pictures that have no template.

    Writes to `output`: NAME.png and NAME.json of each explained pair, contributions.parquet (of all pairs, a line for
    each feature that fires on either face), and deletion.png where the order of the explanation was tried on pairs.
    `on_metrics` gets the thresholds, how much of the similarity is explained, and how faithful the explanations are.

    Raises: UserError for a face that is neither in the set nor a picture, for a picture without a face, for pairs that
    do not fit the set or are too few for the FAR, and where templates, SAE and recognizer do not belong together,
    unless `force` is set.
    """
    origins = [templates.origin, sae.origin, *([recognizer.origin] if recognizer else [])]
    require_same_recognizer(*origins, force=settings.force)
    device = choose_device(settings.device)
    sae, recognizer = sae.to(device).eval(), recognizer.to(device) if recognizer else None
    pairs = choose_pairs(settings, templates)
    asked = [find_face(name, templates, recognizer) for name in (settings.first, settings.second) if name]
    found = _contributions(settings, sae, templates, pairs, asked)
    thresholds = [
        threshold(cosine[: len(pairs)], pairs.genuine, far=settings.far) for cosine in (found.original, found.decoded)
    ]
    if asked:
        identities = {face.identity for face in asked}
        genuine = None if None in identities else len(identities) == 1
        chosen = [Chosen(name="pair", pair=len(pairs), faces=(asked[0], asked[1]), genuine=genuine)]
    else:
        chosen = telling_pairs(found, pairs, templates)
    flip = bool(templates.metadata.get("settings", {}).get("flip"))
    embed = partial(templates_of, recognizer=recognizer, flip=flip) if recognizer and settings.maps else None
    columns = description.columns if description else None
    readings = columns["reading"].tolist() if columns else ["not read"] * sae.d_sae
    off = select_features(settings.without, sae.d_sae, columns) if settings.without else None
    looks = Looks(
        settings=settings,
        sae=sae,
        embed=embed,
        description=description,
        shown=shown,
        cosines=found.original[: len(pairs)],
        genuine=pairs.genuine,
        named=off.words if off else "",
    )
    explanations, files = [], []
    for one in progress(chosen, total=len(chosen), label="explain", unit="pairs"):
        explanation = account(
            found,
            one.pair,
            sae=sae,
            name=one.name,
            images=(one.faces[0].name, one.faces[1].name),
            genuine=one.genuine,
            thresholds=(thresholds[0], thresholds[1]),
            readings=readings,
            n_off=settings.n_shared,
            without=off.features if off else None,
        )
        files += [
            draw(explanation, one, looks, output / f"{one.name}.png"),
            write_explanation(explanation, output / f"{one.name}.json"),
        ]
        explanations.append(explanation)
    files.append(_write_contributions(found, pairs, templates, output / "contributions.parquet"))
    metrics = _metrics(found, pairs, thresholds)
    if settings.n_deleted:
        some = np.array(evenly_spaced(len(pairs), most=settings.n_deleted))
        tried = deletion(found.of_pairs(some), genuine=pairs.genuine[some], seed=settings.seed)
        metrics |= tried.metrics
        files.append(draw_deletion(tried, output / "deletion.png"))
    if settings.n_hidden and embed:
        metrics |= _hidden(settings, templates, pairs, sae, embed).metrics
    on_metrics(metrics, 0)
    return Explained(explanations=explanations, metrics=metrics, files=files, named=looks.named)


def _contributions(
    settings: ExplainSettings, sae: SparseAutoencoder, templates: TemplateSet, pairs: RowPairs, asked: Sequence[Face]
) -> Contributions:
    """The contributions of all pairs, and, last, of the two faces that were asked for."""
    rows = pairs.rows
    x = np.concatenate([templates.templates_of(rows), *(face.template[None] for face in asked)])
    first, second = (np.searchsorted(rows, side) for side in (pairs.first, pairs.second))
    if asked:
        first, second = np.append(first, len(rows)), np.append(second, len(rows) + 1)
    batches = encoded(sae, x, batch_size=settings.batch_size, label="encode")
    return contributions(Decoder.of(sae), Entries.joined([one.entries for one in batches]), x, first, second)


def _hidden(
    settings: ExplainSettings, templates: TemplateSet, pairs: RowPairs, sae: SparseAutoencoder, embed: Embed
) -> Hiding:
    """How faithful the maps are, on faces evenly over those of the pairs."""
    rows = pairs.rows
    rows = rows[evenly_spaced(len(rows), most=settings.n_hidden)]
    faces = to_float(np.stack([np.asarray(face) for face in templates.faces(rows)])).to(sae.W_dec.device)
    return hiding(faces, embed=embed, sae=sae, noise=settings.noise, n_copies=settings.n_copies, seed=settings.seed)


def _metrics(found: Contributions, pairs: RowPairs, thresholds: Sequence[Threshold]) -> dict[str, float]:
    n, metrics = len(pairs), {}
    for name, one in zip(("original", "decoded"), thresholds, strict=True):
        metrics |= {f"{name}/threshold": one.cosine, f"{name}/far": one.far, f"{name}/tar": one.tar}
    for kind, mask in (("genuine", pairs.genuine), ("impostor", ~pairs.genuine)):
        for name, values in (
            ("similarity", found.original),
            ("constant", found.constant),
            ("unexplained", found.unexplained),
        ):
            metrics[f"{kind}/{name}"] = float(values[:n][mask].mean())
    return metrics


def _write_contributions(found: Contributions, pairs: RowPairs, templates: TemplateSet, path: Path) -> Path:
    """Write all pairs' contributions, a line for each feature that fires on either face."""
    last = found.indptr[len(pairs)]
    pair, ids = found.pair[:last], np.array(templates.image_ids, dtype=object)
    columns = {
        "image_id_a": pa.DictionaryArray.from_arrays(pairs.first[pair], ids),
        "image_id_b": pa.DictionaryArray.from_arrays(pairs.second[pair], ids),
        "genuine": pairs.genuine[pair],
        "feature": found.feature[:last],
        "activation_a": found.first[:last].astype(np.float32),
        "activation_b": found.second[:last].astype(np.float32),
        "contribution": found.value[:last].astype(np.float32),
        "cosine_without": found.without[:last].astype(np.float32),
    }
    with atomic_write(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
    return path
