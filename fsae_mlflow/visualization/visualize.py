"""The stage: chosen features → optimized images, beside the real faces that fire the same features most."""

from collections.abc import Sequence
from pathlib import Path

from fsae_mlflow.compute import choose_device
from fsae_mlflow.errors import UserError
from fsae_mlflow.features.activity.summary import Activity
from fsae_mlflow.features.activity.survey import survey
from fsae_mlflow.features.clusters import choose_features, clusters
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.provenance import require_same_recognizer
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.report.tables import write_csv
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.numbers import feature_numbers
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.visualization.assessment import Reference, assess, save_image
from fsae_mlflow.visualization.figures import write_grid
from fsae_mlflow.visualization.optimization import Job, Record, optimize
from fsae_mlflow.visualization.parametrizations.registry import load_parametrization
from fsae_mlflow.visualization.results import OptimizedImage, Visualization, image_table
from fsae_mlflow.visualization.settings import VisualizeSettings

LARGEST_GRID = 300  # rows of features.png: matplotlib draws up to 65,536 pixels


def visualize(
    settings: VisualizeSettings,
    *,
    templates: TemplateSet,
    sae: SparseAutoencoder,
    recognizer: Recognizer,
    output: Path,
    activity: Activity | None = None,
    on_metrics: OnMetrics | None = None,
) -> Visualization:
    """Make `n_images` images of every chosen feature through `recognizer`, the one that made `templates`.

    Writes to `output`: images/feature-00042-seed-0.png and so on, features.png (figure 3), table.csv (a line per image)
    and history.csv (a line per image and recorded step). `on_metrics` gets objective, activation and norm_ratio of
    every image at the optimizer's recorded steps. `activity`: how `templates` fire the SAE, from describe; they are
    encoded where it is None.

    Raises: UserError for a feature that does not exist, where the templates' width differs from the SAE's d_in, and
    where templates, SAE and recognizer do not belong together, unless `force` is set.
    """
    require_same_recognizer(templates.origin, sae.origin, recognizer.origin, force=settings.force)
    device = choose_device(settings.device)
    sae, recognizer = sae.to(device), recognizer.to(device)
    named = named_features(settings.features, sae.d_sae)
    found = activity or survey(sae, templates, most=settings.n_top_faces, batch_size=settings.batch_size).activity
    features = named or best_features(settings, sae, found)
    references = references_of(found, features)

    jobs = [
        Job(feature=feature, seed=settings.seed + image) for feature in features for image in range(settings.n_images)
    ]
    images: list[OptimizedImage] = []
    history: list[list[object]] = []
    batches = [jobs[first : first + settings.images_at_once] for first in range(0, len(jobs), settings.images_at_once)]
    for number, batch in enumerate(batches, start=1):
        made, records = optimize(
            batch,
            load_parametrization(settings.parametrization),
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
            per_image = _metrics(record, batch, found.mean_norm)
            history += [[job.feature, job.seed, record.step, *metrics.values()] for job, metrics in per_image]
            if on_metrics is not None:
                on_metrics(
                    {
                        f"feature-{job.feature}-seed-{job.seed}/{name}": value
                        for job, metrics in per_image
                        for name, value in metrics.items()
                    },
                    record.step,
                )
        for job, image in zip(batch, made, strict=True):
            path = save_image(image, output / "images" / f"feature-{job.feature:05d}-seed-{job.seed}.png")
            measured = assess(
                path, job.feature, recognizer=recognizer, sae=sae, reference=references[job.feature], device=device
            )
            images.append(OptimizedImage(feature=job.feature, seed=job.seed, path=path, assessment=measured))

    header = ["feature", "seed", "step", "objective", "activation", "norm_ratio"]
    done = Visualization(
        features=features,
        references=references,
        images=images,
        activity=found,
        n_top_faces=settings.n_top_faces,
        table=write_csv(output / "table.csv", image_table(images, references)),
        history=write_csv(output / "history.csv", [header, *history]),
        grid=output / "features.png",
    )
    write_grid(done, templates, done.grid)
    if on_metrics is not None:
        on_metrics(done.metrics, settings.steps)
    return done


def named_features(features: str, d_sae: int) -> list[int]:
    """The feature numbers that the setting `features` names, each once; none for "best".

    Raises: UserError for words that are not feature numbers, and for more of them than a figure can show.
    """
    if features == "best":
        return []
    words = [word.strip() for word in features.split(",")]
    chosen = feature_numbers(words, d_sae, must="features must be best, or ")
    if len(chosen) > LARGEST_GRID:
        raise UserError(
            f"features must name at most {LARGEST_GRID}, which one figure can show; it names {len(chosen)}."
        )
    return chosen


def best_features(settings: VisualizeSettings, sae: SparseAutoencoder, found: Activity) -> list[int]:
    """The best features of both clusters; the clusters come from the SAE's training densities, if it has them."""
    trained = sae.density.double().cpu().numpy()
    both = clusters(trained if trained.any() else found.density)
    return choose_features(both, found.counts, found.contrast, n=settings.n_features, enough=settings.n_top_faces)


def references_of(found: Activity, features: Sequence[int]) -> dict[int, Reference]:
    """The features on real faces."""
    return {
        feature: Reference(
            density=float(found.density[feature]),
            maximum=float(found.maxima[feature]),
            percentile=float(found.percentile[feature]),
            mean_norm=found.mean_norm,
        )
        for feature in features
    }


def _metrics(record: Record, batch: Sequence[Job], mean_norm: float) -> list[tuple[Job, dict[str, float]]]:
    """Each image's metrics at a recorded step, its norm divided by the real faces' mean."""
    columns = (record.objective.tolist(), record.activation.tolist(), (record.norm / mean_norm).tolist())
    return [
        (job, dict(zip(("objective", "activation", "norm_ratio"), values, strict=True)))
        for job, *values in zip(batch, *columns, strict=True)
    ]
