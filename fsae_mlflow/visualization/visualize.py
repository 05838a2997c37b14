"""The stage: chosen features → optimized images, measured beside the real faces that fire the same features most."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from fsae_mlflow.compute import choose_device
from fsae_mlflow.features.density import Survey, clusters, survey
from fsae_mlflow.features.top_faces import TopRows, choose_features, top_rows
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.assessment import Reference, assess, save_image
from fsae_mlflow.visualization.figures import write_grid
from fsae_mlflow.visualization.optimization import Job, Record, optimize
from fsae_mlflow.visualization.parametrizations.registry import PARAMETRIZATIONS
from fsae_mlflow.visualization.results import OptimizedImage, Visualization, image_table, write_csv
from fsae_mlflow.visualization.settings import VisualizeSettings

TOP_SHARE = 0.001


def visualize(
    settings: VisualizeSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    recognizer: nn.Module,
    output: Path,
    on_metrics: OnMetrics | None = None,
) -> Visualization:
    """Make `n_images` images of every chosen feature through `recognizer`, the one that made `templates`.

    Writes to `output` images/feature-00042-seed-0.png, features.png (figure 3), table.csv (an image a line) and
    history.csv (an image and recorded step a line). `on_metrics` gets objective, activation and norm_ratio of every
    image as it is made, its step being the optimizer's.

    Raises: ValueError for a feature that does not exist, or templates as wide as no input of the SAE.
    """
    device = choose_device(settings.device)
    sae, recognizer = sae.to(device), recognizer.to(device)
    vectors = templates.templates
    counted = survey(sae, vectors, batch_size=settings.batch_size)
    features = chosen_features(settings, sae, counted)
    kept = max(settings.n_top_faces, math.ceil(TOP_SHARE * len(templates)) + 1)
    top = top_rows(sae, vectors, features, k=kept, batch_size=settings.batch_size)
    mean_norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())
    references = {feature: reference(counted, top, position, mean_norm) for position, feature in enumerate(features)}

    jobs = [
        Job(feature=feature, seed=settings.seed + image) for feature in features for image in range(settings.n_images)
    ]
    images: list[OptimizedImage] = []
    history: list[list[object]] = []
    batches = [jobs[first : first + settings.images_at_once] for first in range(0, len(jobs), settings.images_at_once)]
    for number, batch in enumerate(batches, start=1):
        made, records = optimize(
            batch,
            PARAMETRIZATIONS[settings.parametrization],
            recognizer=recognizer,
            sae=sae,
            steps=settings.steps,
            lr=settings.lr,
            jitter=settings.jitter,
            record_every=settings.record_every,
            device=device,
            label=f"visualize {number} of {len(batches)}",
        )
        for record in records:
            standing = _standing(record, batch, mean_norm)
            history += [[job.feature, job.seed, record.step, *numbers.values()] for job, numbers in standing]
            if on_metrics is not None:
                paths = {job: f"feature-{job.feature}-seed-{job.seed}" for job in batch}
                on_metrics(
                    {f"{paths[job]}/{name}": value for job, numbers in standing for name, value in numbers.items()},
                    record.step,
                )
        for job, image in zip(batch, made, strict=True):
            path = save_image(image, output / "images" / f"feature-{job.feature:05d}-seed-{job.seed}.png")
            found = assess(
                path, job.feature, recognizer=recognizer, sae=sae, reference=references[job.feature], device=device
            )
            images.append(OptimizedImage(feature=job.feature, seed=job.seed, path=path, assessment=found))

    header = ["feature", "seed", "step", "objective", "activation", "norm_ratio"]
    done = Visualization(
        features=features,
        references=references,
        images=images,
        top=top,
        n_top_faces=settings.n_top_faces,
        table=write_csv(output / "table.csv", image_table(images, references)),
        history=write_csv(output / "history.csv", [header, *history]),
        grid=output / "features.png",
    )
    write_grid(done, templates, done.grid)
    if on_metrics is not None:
        on_metrics(done.metrics, settings.steps)
    return done


def chosen_features(settings: VisualizeSettings, sae: SparseAutoencoder, counted: Survey) -> list[int]:
    """The features that the settings name, or the best of both clusters (clusters by the SAE's own training densities
    where it has them).

    Raises: ValueError for words that are no feature numbers.
    """
    if settings.features != "best":
        words = [word.strip() for word in settings.features.split(",")]
        if unknown := [word for word in words if not word.isdigit() or int(word) >= sae.d_sae]:
            raise ValueError(
                f"features must be best, or numbers from 0 to {sae.d_sae - 1} with commas between; "
                f"one is {unknown[0]!r}."
            )
        return list(dict.fromkeys(int(word) for word in words))
    trained = sae.density.double().cpu().numpy()
    return choose_features(
        counted,
        clusters(trained if trained.any() else counted.density),
        n=settings.n_features,
        enough=settings.n_top_faces,
    )


def reference(counted: Survey, top: TopRows, position: int, mean_norm: float) -> Reference:
    """A feature's figures on real faces; the percentile is over all faces, those that do not fire it counting as
    zero.
    """
    feature = int(top.features[position])
    ranked = top.activations[position].astype(np.float64)
    place = TOP_SHARE * (counted.n - 1)
    above = min(math.floor(place), len(ranked) - 1)
    below = min(above + 1, len(ranked) - 1)
    percentile = ranked[above] + (place - above) * (ranked[below] - ranked[above])
    return Reference(
        density=float(counted.density[feature]),
        maximum=float(counted.maxima[feature]),
        percentile=float(percentile),
        mean_norm=mean_norm,
    )


def _standing(record: Record, batch: Sequence[Job], mean_norm: float) -> list[tuple[Job, dict[str, float]]]:
    """Each image's numbers at a recorded step, its norm as a ratio to the real faces' mean."""
    columns = (record.objective.tolist(), record.activation.tolist(), (record.norm / mean_norm).tolist())
    return [
        (job, dict(zip(("objective", "activation", "norm_ratio"), numbers, strict=True)))
        for job, *numbers in zip(batch, *columns, strict=True)
    ]
