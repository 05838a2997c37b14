"""The stage: chosen features → optimized images and dials, a verdict on each, and what it is compared with."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn
from torch.nn import functional as F

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.features.labels.attributes import read_attributes
from fsae_mlflow.features.table import Description
from fsae_mlflow.identities import holdout_rows
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.parameters import fingerprint
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.variants.registry import VARIANT
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.choosing import chosen_targets, named_targets
from fsae_mlflow.visualization.controls import (
    Made,
    of_others,
    random_directions,
    real_faces,
    surveyed,
)
from fsae_mlflow.visualization.dictionary import Dictionary
from fsae_mlflow.visualization.making.ensemble import Ensemble
from fsae_mlflow.visualization.making.optimization import Job
from fsae_mlflow.visualization.making.saved import read_record
from fsae_mlflow.visualization.making.studio import OnImage, Studio
from fsae_mlflow.visualization.parametrizations.registry import load_parametrization
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.real_faces.starts import Starts
from fsae_mlflow.visualization.results import OptimizedImage, Visualization, mean_history, write_tables
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.targets import Target
from fsae_mlflow.visualization.verdict.firing import Reference, read_picture
from fsae_mlflow.visualization.verdict.judge import Judge, probes_of, top_faces
from fsae_mlflow.visualization.verdict.verdict import RULE, Case, verdicts

CONFIRM = 0.5


def visualize(
    settings: VisualizeSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    recognizer: Recognizer,
    output: Path,
    description: Description | None = None,
    judge: Recognizer | None = None,
    ensemble: Recognizer | None = None,
    about: Mapping[str, Any] | None = None,
    on_metrics: OnMetrics | None = None,
    on_image: OnImage | None = None,
) -> Visualization:
    """Make `n_images` images of every chosen target through `recognizer`, the one that made `templates`.

    Writes to `output`: feature_images/feature-00042-seed-0.png and so on, dials/, controls/, and the tables
    (results.py). An image that is there already, made in the same way, is not made again. `description`: how
    `templates` fire the SAE and what the features are read as, from describe; templates are encoded where it is None.
    `judge` and `ensemble`: other recognizers. `about` tells these inputs from others, by digests; it is stored with the
    tables. `on_image` gets sheets of the first images while they are made.

    Raises: UserError for a feature that does not exist, where the templates' width differs from the SAE's d_in, for a
    judge that images are optimized for or that has nobody to judge by, for a `start` or for attributes that would
    be ignored, and where templates, SAE and recognizer do not belong together, unless `force` is set.
    """
    require_same_recognizer(templates.origin, sae.origin, recognizer.origin, force=settings.force)
    for one in (recognizer, ensemble):
        if judge is not None and one is not None and judge.origin.digest == one.origin.digest:
            raise UserError(
                "judge must differ from the recognizer and the ensemble of this run; give another, or leave judge "
                "empty."
            )
    confirm = confirming(templates)
    if judge is not None and not confirm.any():
        raise UserError(
            f"judge needs faces of people that the images are not made from; {templates.folder} has only one person. "
            "Leave judge empty, or extract faces of more people."
        )
    if settings.attributes and (judge is None or description is None):
        raise UserError(
            "attributes has an effect only together with judge and readings; give both, or leave attributes out."
        )
    if settings.start and not load_parametrization(settings.parametrization).default_start:
        raise UserError(
            f"start: images of parametrization={settings.parametrization} do not begin with a face; leave start empty, "
            "or choose eigenfaces or accentuate."
        )
    named_targets(settings.features, sae.d_sae)
    device = choose_device(settings.device)
    sae, recognizer = sae.to(device), recognizer.to(device)
    activity = description.activity if description else surveyed(settings, sae, templates)
    main = Dictionary.of(
        sae,
        chosen_targets(settings, sae, activity),
        activity=activity,
        templates=templates,
        batch_size=settings.batch_size,
    )

    made_of = {name: value for name, value in (about or {}).items() if name != "judge"}

    @cache
    def prior() -> FacePrior:
        return FacePrior.of(templates)

    def studio(of: Dictionary, **more: int) -> Studio:
        real = RealTemplates.of(templates, of.sae, of.targets, mean_norm=of.activity.mean_norm, maxima=of.maxima)
        shared = {"templates": templates, "confirm": confirm}
        seen = {"activity": of.activity, "seed": settings.seed, "device": device}
        return Studio(
            settings=settings,
            sae=of.sae,
            recognizer=recognizer,
            real=real,
            prior=prior() if settings.dial or load_parametrization(settings.parametrization).needs_prior else None,
            start=cache(lambda name: Starts(name, prior=prior(), sae=of.sae, **shared)),
            ensemble=Ensemble(ensemble, of.targets, **shared, **seen) if ensemble else None,
            device=device,
            made=fingerprint(settings.making | made_of | more),
        )

    at_main = studio(main)
    made = _images(
        settings, at_main, main, output / "feature_images", settings.parametrization, settings.n_images, on_image
    )
    dials = at_main.make_dials(main.targets, output / "dials") if settings.dial else {}
    for name in settings.control_names:
        folder = output / "controls" / name
        if name == "real":
            made += real_faces(main, templates, folder)
        elif name == "other":
            made += of_others([one for one in made if not one.control and one.seed == settings.seed])
        elif name == "pixels":
            made += _images(settings, at_main, main, folder, "pixels", 1, control="pixels")
        else:
            random = random_directions(settings, main, templates)
            made += _images(
                settings,
                studio(random, n_random=len(random.targets)),
                random,
                folder,
                settings.parametrization,
                1,
                control="random",
            )

    found = _judged(settings, made, recognizer, judge, description, templates, confirm, device)
    images = [image for image in found if not image.control]
    done = Visualization(
        of=main,
        images=images,
        controls=[image for image in found if image.control],
        dials=dials,
        alike=_alike(images, recognizer, device),
        about=f"SAE: {VARIANT.name_of(sae.settings)}, {sae.d_sae:,} features. Recognizer: {recognizer.card.name}.",
        folders=sorted({image.path.parent for image in found} | {path.parent for path in dials.values()}),
    )
    done.files.extend(write_tables(done, output, about={"rule": RULE, **(about or {})}))
    if on_metrics is not None:
        for step, metrics in mean_history(done).items():
            on_metrics(metrics, step)
        on_metrics(done.metrics, 0)
    return done


def confirming(templates: TemplateSet) -> Bool[np.ndarray, " n_rows"]:
    """The rows of the people on whom images are judged, half of all people; of one person none."""
    identities = templates.identities
    if len(np.unique(identities)) < 2:
        return np.zeros(len(identities), bool)
    return holdout_rows(identities, CONFIRM, seed=0)


def _images(
    settings: VisualizeSettings,
    studio: Studio,
    of: Dictionary,
    folder: Path,
    parametrization: str,
    n_images: int,
    on_image: OnImage | None = None,
    control: str = "",
) -> list[Made]:
    jobs = [Job(target=target, seed=settings.seed + image) for target in of.targets for image in range(n_images)]
    label = f"visualize {control}".strip()
    paths = studio.make(jobs, folder, parametrization=parametrization, label=label, on_image=on_image)
    return [
        Made(
            target=job.target,
            seed=job.seed,
            path=path,
            parametrization=parametrization,
            dictionary=of,
            control=control,
        )
        for job, path in zip(jobs, paths, strict=True)
    ]


def _judged(
    settings: VisualizeSettings,
    made: Sequence[Made],
    recognizer: Recognizer,
    judge: nn.Module | None,
    description: Description | None,
    templates: TemplateSet,
    confirm: Bool[np.ndarray, " n_rows"],
    device: torch.device,
) -> list[OptimizedImage]:
    cases = [_case(one, description, confirm) for one in made]
    seeing, probes = None, {}
    if judge is not None:
        seeing = Judge.of(
            judge,
            templates=templates,
            top=[case.top for case in cases],
            confirm=confirm,
            seed=settings.seed,
            device=device,
        )
        if any(case.attribute for case in cases):
            labels = read_attributes(settings.attributes, templates).booleans
            probes = probes_of(seeing, [case.attribute for case in cases], labels)
    found: dict[int, OptimizedImage] = {}
    for dictionary in {id(one.dictionary): one.dictionary for one in made}.values():
        own = [(one, case) for one, case in zip(made, cases, strict=True) if one.dictionary is dictionary]
        judged = verdicts(
            [read_picture(one.path) for one, _ in own],
            [case for _, case in own],
            recognizer=recognizer,
            sae=dictionary.sae,
            maxima=dictionary.maxima,
            judge=seeing,
            probes=probes,
            device=device,
        )
        for (one, _), verdict in zip(own, judged, strict=True):
            found[id(one)] = OptimizedImage(
                target=one.target,
                seed=one.seed,
                path=one.path,
                parametrization=one.parametrization,
                verdict=verdict,
                history=read_record(one.path).get("history", []),
                control=one.control,
            )
    return [found[id(one)] for one in made]


def _case(made: Made, description: Description | None, confirm: Bool[np.ndarray, " n_rows"]) -> Case:
    target, of = made.target, made.dictionary
    row_of_target = of.row(target)
    top, attribute = top_faces(of.activity, row_of_target, confirm), ""
    row = int(of.activity.top_of(row_of_target)[0][0]) if made.control == "real" else -1
    read = made.control != "random" and not target.combined
    if read and description is not None and "attribute" in description.columns:
        named = description.columns["attribute_confirmed"][target.feature]
        attribute = str(description.columns["attribute"][target.feature]) if named else ""
    reference = Reference.of(of.activity, row_of_target)
    return Case(target=target, reference=reference, top=top, attribute=attribute, row=row)


@torch.no_grad()
def _alike(images: Iterable[OptimizedImage], recognizer: nn.Module, device: torch.device) -> dict[Target, float]:
    """The mean cosine of the templates of each target's images; nan for one image."""
    of_target: dict[Target, list[Path]] = {}
    for image in images:
        of_target.setdefault(image.target, []).append(image.path)
    found = {}
    for target, paths in of_target.items():
        faces = to_float(np.stack([read_picture(path) for path in paths])).to(device)
        unit, n = F.normalize(recognizer(faces), dim=1), len(paths)
        found[target] = float((unit.sum(dim=0).square().sum() - n) / (n * (n - 1))) if n > 1 else float("nan")
    return found
