"""Pictures → template set: the stage that joins faces and recognizers."""

import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fsae_mlflow.compute import choose_device
from fsae_mlflow.extraction import sheets
from fsae_mlflow.extraction.plan import Plan
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.writing import write_shards
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.faces.pictures import take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.parameters import output_folder
from fsae_mlflow.progress import OnMetrics
from fsae_mlflow.ranks import Ranks
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.templates.schema import schema
from fsae_mlflow.templates.set import MARKER, TemplateSet
from fsae_mlflow.templates.writing import finish

POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """A finished extraction: the template set, its metrics, and the paths of two contact sheets."""

    templates: TemplateSet
    metrics: dict[str, float]
    accepted: Path | None
    rejected: Path | None


def extract(settings: ExtractSettings, *, on_metrics: OnMetrics) -> Extraction:
    """Find, align and embed every face of a source: a template set at `output`/templates, contact sheets beside it.

    `output` is that of the settings, or a folder under outputs/extract named by the plan's fingerprint.

    Every picture ends in a row (or several) or in a failure with its reason. Rows are in the source's order and do not
    depend on `workers` and `threads`, and on `batch_size` only by rounding. An unfinished extraction with the same plan
    is continued. Under torchrun every process writes some of the shards, and the first one finishes the set.

    Raises: ValueError for a source, recognizer or device that does not exist, or an `output` with another extraction.
    """
    source = open_source(settings.faces)
    inventory = take_inventory(source)
    device = choose_device(_local(settings.device))
    recognizer = load_recognizer(settings.recognizer, card=settings.recognizer_card).to(device)
    width = recognizer.card.template_width
    schema(width, source.attributes)  # refuses names of columns before the work begins
    plan, ranks = Plan.of(settings, source, inventory, recognizer.card), Ranks.of_environment()
    output = output_folder("extract", settings.output, plan.fingerprint)
    folder = output / "templates"
    plan.agree(folder)
    rate: dict[str, float] = {}
    if (folder / MARKER).is_file():
        logger.info("extract: %s is already finished", folder)
    else:
        n_pictures, started = sum(map(plan.n_pictures, plan.missing(folder, Ranks()))), time.monotonic()
        mine = plan.missing(folder, ranks)
        write_shards(mine, plan, folder, settings=settings, source=source, recognizer=recognizer)
        while plan.missing(folder, Ranks()):
            time.sleep(POLL_SECONDS)
        rate = {"images_per_second": n_pictures / (time.monotonic() - started)}
        if ranks.leads:
            finish(folder, width=width, metadata=_metadata(settings, plan), attributes=source.attributes)
        while not (folder / MARKER).is_file():
            time.sleep(POLL_SECONDS)
    templates = TemplateSet.open(folder)
    metrics = _metrics(templates, inventory.n_pictures) | rate
    if not ranks.leads:
        return Extraction(templates, metrics, None, None)
    on_metrics(metrics, 0)
    accepted = sheets.accepted(templates.faces(sheets.evenly_spaced(len(templates))), output / "accepted.png")
    rejected = sheets.rejected(source, templates.failures, output / "rejected.png")
    return Extraction(templates, metrics, accepted, rejected)


def _local(device: str) -> str:
    """The device of this process: of several processes on a machine, each takes a GPU of its own."""
    n_devices = torch.cuda.device_count()
    if device in ("auto", "cuda") and n_devices and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % n_devices}"
    return device


def _metrics(templates: TemplateSet, n_pictures: int) -> dict[str, float]:
    return {
        "n_images": float(n_pictures),
        "n_faces": float(len(templates)),
        "n_failures": float(templates.metadata["n_failures"]),
        "n_central_crops": float((templates.column("probability") == 0).sum()),
    }


def _metadata(settings: ExtractSettings, plan: Plan) -> dict[str, Any]:
    found = f"MTCNN keypoints, least-squares similarity to the ArcFace template at {FACE_SIZE} x {FACE_SIZE}"
    return {
        "source": plan.source,
        "recognizer": plan.recognizer,
        "alignment": "as given" if settings.aligned else found,
        "settings": settings.deciding,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
