"""Pictures → template set: the stage that joins faces and recognizers."""

import dataclasses
import logging
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction import sheets
from fsae_mlflow.extraction.plan import PLAN, Plan
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.extraction.writing import write_shards
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.faces.decoding import read
from fsae_mlflow.faces.pictures import Inventory, Source, take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.files.locks import only_writer
from fsae_mlflow.machine.compute import choose_device
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.parameters import output_folder
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.templates.marker import MARKER
from fsae_mlflow.templates.rows import evenly_spaced
from fsae_mlflow.templates.schema import schema
from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.spectrum import spectrum
from fsae_mlflow.templates.writing import faults_of, finish, has_shard, remove_shard, reopen, shard_fault

POLL_SECONDS = 0.5
N_LOOKED_AT = 8  # pictures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """A finished extraction: the template set, its metrics, and the paths of two contact sheets."""

    templates: TemplateSet
    metrics: dict[str, float]
    accepted: Path | None
    rejected: Path | None

    @property
    def headline(self) -> str:
        """How many faces were found, and in how many pictures none."""
        n_failures = self.templates.metadata["n_failures"]
        return f"{len(self.templates):,} faces with templates; {n_failures:,} pictures failed"


def extract(settings: ExtractSettings, *, on_metrics: OnMetrics) -> Extraction:
    """Find, align and embed every face of a source: a template set at `output`/templates, contact sheets beside it.

    `output` is that of the settings, or a folder under outputs/extract named by the plan's fingerprint.

    Every picture ends in a row (or several) or in a failure with its reason. Rows are in the source's order and do not
    depend on `workers` and `threads`, and on `batch_size` only by rounding. An unfinished extraction with the same plan
    is continued; damaged shards, also of a finished set, are made again. Under torchrun every process writes some of
    the shards, and the first one finishes the set.

    Raises: UserError for a source, recognizer or device that does not exist, an `output` with another extraction or in
    work by another process, or files that changed since the extraction began.
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
    if not ranks.leads:
        while not (folder / PLAN).is_file():  # the first process holds the folder, and compares the files' times
            time.sleep(POLL_SECONDS)
        dataclasses.replace(plan, files="").agree(folder)
    with only_writer(output) if ranks.leads else nullcontext():
        if ranks.leads:
            plan.agree(folder)
            _reopen(folder, ranks)
        templates, rate = _templates(folder, plan, ranks, settings, source, recognizer, inventory)
        metrics = _accounted(templates, inventory) | rate
        if not ranks.leads:
            return Extraction(templates, metrics, None, None)
        metrics |= spectrum(templates).metrics
        on_metrics(metrics, 0)
        accepted = sheets.accepted(
            templates.faces(evenly_spaced(len(templates), most=sheets.N_TILES)), output / "accepted.png"
        )
        rejected = sheets.rejected(source, templates.failures, output / "rejected.png")
        return Extraction(templates, metrics, accepted, rejected)


def _warn_if_aligned(source: Source) -> None:
    """Warn where the first pictures all have the size of aligned faces, in which, without padding, detection errs."""
    shapes = [one.pixels.shape[:2] for one in map(read, islice(source, N_LOOKED_AT)) if one.pixels is not None]
    if shapes and set(shapes) == {(FACE_SIZE, FACE_SIZE)}:
        size = f"{FACE_SIZE} x {FACE_SIZE}"
        logger.warning(
            "faces: the first pictures of %s are %s, as if they were aligned already; if they are, give aligned=true: "
            "aligning them again finds fewer faces and makes templates worse.",
            source.name,
            size,
        )


def _templates(
    folder: Path,
    plan: Plan,
    ranks: Ranks,
    settings: ExtractSettings,
    source: Source,
    recognizer: Recognizer,
    inventory: Inventory,
) -> tuple[TemplateSet, dict[str, float]]:
    """The finished set of a plan, and the rate of its making if it was not finished yet."""
    if (folder / MARKER).is_file():
        logger.info("extract: %s is already finished", folder)
        return TemplateSet.open(folder), {}
    if ranks.leads and not settings.aligned and not settings.before_detection[1]:
        _warn_if_aligned(source)
    _remove_damaged(folder, plan, ranks)
    n_pictures, started = sum(map(plan.n_pictures, plan.missing(folder, Ranks()))), time.monotonic()
    mine = plan.missing(folder, ranks)
    write_shards(mine, plan, folder, settings=settings, source=source, recognizer=recognizer)
    if ranks.leads:
        _wait_for_others(folder, plan, ranks)
        rate = {"images_per_second": n_pictures / (time.monotonic() - started)}
        metadata = _metadata(settings, plan, inventory)
        attributes, width = source.attributes, recognizer.card.template_width
        return finish(folder, n_shards=plan.n_shards, width=width, metadata=metadata, attributes=attributes), rate
    while not (folder / MARKER).is_file():
        time.sleep(POLL_SECONDS)
    return TemplateSet.open(folder), {}


def _reopen(folder: Path, ranks: Ranks) -> None:
    """Make a finished set with damaged shards an unfinished one without them.

    Raises: UserError if there are several processes, of which the others may have seen the finished set.
    """
    if not (folder / MARKER).is_file() or not (faults := faults_of(folder)):
        return
    if not ranks.alone:
        names = ", ".join(faults)
        raise UserError(f"templates: {folder} is damaged ({names}); run the same command once without torchrun.")
    for file, fault in faults.items():
        logger.warning("extract: %s %s; its shard is made again", folder / file, fault)
    reopen(folder, faults)


def _remove_damaged(folder: Path, plan: Plan, ranks: Ranks) -> None:
    """Remove the process's damaged shards of an unfinished set."""
    mine = ranks.turns(plan.n_shards)
    for shard in progress(mine, total=len(mine), label="check", unit="shards"):
        fault = shard_fault(folder, shard, plan.n_pictures(shard)) if has_shard(folder, shard) else ""
        if fault and not (folder / MARKER).is_file():  # a set that was just finished has no single failures any more
            logger.warning("extract: shard %s in %s is made again: %s", shard, folder, fault)
            remove_shard(folder, shard)


def _wait_for_others(folder: Path, plan: Plan, ranks: Ranks) -> None:
    """Wait until the other processes' shards are there and sound."""
    waiting = sorted(set(range(plan.n_shards)) - set(ranks.turns(plan.n_shards)))
    while waiting := [
        shard for shard in waiting if not has_shard(folder, shard) or shard_fault(folder, shard, plan.n_pictures(shard))
    ]:
        time.sleep(POLL_SECONDS)


def _local(device: str) -> str:
    """The device of this process: of several processes on a machine, each takes a GPU of its own."""
    n_devices = torch.cuda.device_count()
    if device in ("auto", "cuda") and n_devices and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % n_devices}"
    return device


def _accounted(templates: TemplateSet, inventory: Inventory) -> dict[str, float]:
    """The metrics of a set in which every picture ends in a row or a failure."""
    n_pictures, n_failures = inventory.n_pictures, templates.metadata["n_failures"]
    if templates.metadata.get("n_pictures", n_pictures) != n_pictures:  # version 0.1 did not count them
        raise RuntimeError(
            f"{templates.folder} accounts for {templates.metadata['n_pictures']} of {n_pictures} pictures"
        )
    logger.info("extract: %s pictures: %s with a row, %s failures", n_pictures, n_pictures - n_failures, n_failures)
    if inventory.passed_over:
        by_suffix = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in inventory.passed_over.items())
        logger.info("extract: files passed over, as their suffix is not that of a picture: %s", by_suffix)
    return {
        "n_images": float(n_pictures),
        "n_passed_over": float(inventory.passed_over.total()),
        "n_faces": float(len(templates)),
        "n_failures": float(n_failures),
        "n_central_crops": float((templates.column("probability") == 0).sum()),
    }


def _metadata(settings: ExtractSettings, plan: Plan, inventory: Inventory) -> dict[str, Any]:
    found = f"MTCNN keypoints, least-squares similarity to the ArcFace template at {FACE_SIZE} x {FACE_SIZE}"
    return {
        "source": plan.source,
        "n_passed_over": inventory.passed_over.total(),
        "passed_over": dict(inventory.passed_over),
        "recognizer": plan.recognizer,
        "alignment": "as given" if settings.aligned else found,
        "settings": settings.deciding,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
