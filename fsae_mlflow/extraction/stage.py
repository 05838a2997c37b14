"""Pictures → template set: the stage that joins faces and recognizers."""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from fsae_mlflow.compute import choose_device
from fsae_mlflow.extraction import sheets
from fsae_mlflow.extraction.plan import Plan, Share
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.faces import quality
from fsae_mlflow.faces.cutting import AlignedFace, FaceCutter
from fsae_mlflow.faces.decoding import Decoded, decoded
from fsae_mlflow.faces.images import encoded_jpeg
from fsae_mlflow.faces.pictures import Picture, Source, take_inventory
from fsae_mlflow.faces.sources.registry import open_source
from fsae_mlflow.progress import OnMetrics, progress
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.registry import load_recognizer
from fsae_mlflow.templates.schema import FaceRow, schema
from fsae_mlflow.templates.set import MARKER, TemplateSet
from fsae_mlflow.templates.writing import finish, has_shard, write_shard

PIXELS_PER_BATCH = 64_000_000  # a batch of large pictures must fit into memory too
FACES_PER_CALL = 16  # on a CPU, where the recognizer's activations should stay in the cache
LANES_ON_CUDA = 2  # one batch is warped and written while another one is in the networks
SECONDS_BETWEEN_LOOKS = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extraction:
    """A finished extraction: the template set, its metrics, and contact sheets to look at."""

    templates: TemplateSet
    metrics: dict[str, float]
    accepted: Path | None
    rejected: Path | None


@dataclass(frozen=True)
class Batch:
    """What came of some consecutive pictures of one shard."""

    shard: int
    n_pictures: int
    rows: list[FaceRow]
    failures: list[tuple[str, str]]


def extract(settings: ExtractSettings, *, output: Path | None, on_metrics: OnMetrics) -> Extraction:
    """Find, align and embed every face of a source: a template set at `output`/templates, contact sheets beside it.

    Without an `output` it is a folder under outputs/extract named by the pictures, the recognizer and the settings.

    Every picture ends in a row (or several) or in a failure with its reason. Rows stand in the source's order and
    depend neither on `workers` and `threads` nor, beyond rounding, on `batch_size`. Where `output` holds the same
    extraction unfinished, it goes on there. Under torchrun every process writes some of the shards, and the first one
    finishes the set.

    Raises: ValueError for a source, recognizer or device that is not there, or an `output` with another extraction.
    """
    source = open_source(settings.faces)
    inventory = take_inventory(source)
    device = choose_device(_local(settings.device))
    recognizer = load_recognizer(settings.recognizer, card=settings.recognizer_card).to(device)
    schema(recognizer.card.template_width, source.attributes)
    plan, share = Plan.of(settings, source, inventory, recognizer.card), Share.of_environment()
    output = output or plan.default_output
    folder = output / "templates"
    plan.agree(folder)
    rate: dict[str, float] = {}
    if (folder / MARKER).is_file():
        logger.info("extract: %s is finished already", folder)
    else:
        to_do = Share(0, 1).missing(plan, folder)
        started = time.monotonic()
        _write_missing(settings, source, recognizer, device, plan, share, folder)
        _wait_for(plan, share, folder)
        rate = {"images_per_second": sum(map(plan.n_pictures, to_do)) / (time.monotonic() - started)}
        if share.rank == 0:
            width = recognizer.card.template_width
            finish(folder, width=width, metadata=_metadata(settings, plan), attributes=source.attributes)
    templates = TemplateSet.open(folder)
    metrics = _metrics(templates, inventory.n_pictures) | rate
    if share.rank:
        return Extraction(templates, metrics, None, None)
    on_metrics(metrics, 0)
    accepted = sheets.accepted(templates.faces(sheets.evenly_spaced(len(templates))), output / "accepted.png")
    rejected = sheets.rejected(source, templates.failures, output / "rejected.png")
    return Extraction(templates, metrics, accepted, rejected)


def _write_missing(
    settings: ExtractSettings,
    source: Source,
    recognizer: Recognizer,
    device: torch.device,
    plan: Plan,
    share: Share,
    folder: Path,
) -> None:
    """Write this process' shards that are not there; the writing of one overlaps with the making of the next."""
    missing = share.missing(plan, folder)
    cut = FaceCutter(settings, device=device)
    width = recognizer.card.template_width

    def work(batch: tuple[int, list[Decoded]]) -> Batch:
        shard, pictures = batch
        faces, failures = cut(pictures)
        rows = [
            row
            for first in range(0, len(faces), at_once)
            for row in _rows(faces[first : first + at_once], recognizer, settings)
        ]
        return Batch(shard, len(pictures), rows, failures)

    def write(shard: int, batches: list[Batch]) -> None:
        rows = [row for batch in batches for row in batch.rows]
        failures = [failure for batch in batches for failure in batch.failures]
        write_shard(folder, shard, rows, failures, width=width, attributes=source.attributes)

    on_cpu = device.type == "cpu"
    n_lanes = (settings.threads or torch.get_num_threads()) if on_cpu else LANES_ON_CUDA
    at_once = FACES_PER_CALL if on_cpu else settings.batch_size
    n_pictures = sum(map(plan.n_pictures, missing))
    with (
        closing(decoded(_wanted(source, missing, plan), workers=settings.workers)) as pictures,
        # One thread per batch rather than several per operation: MTCNN's operations are too small to share.
        ThreadPoolExecutor(n_lanes, initializer=torch.set_num_threads, initargs=(1,)) as lanes,
        ThreadPoolExecutor(1) as writer,
    ):
        seen = progress(pictures, total=n_pictures, label="extract", unit="images")
        made = _in_order(
            lanes, work, _batches(seen, missing, plan, settings.batch_size, PIXELS_PER_BATCH / cut.growth), n_lanes + 1
        )
        previous: Future[None] | None = None
        for shard, batches in groupby(made, key=lambda batch: batch.shard):
            whole = list(batches)
            if previous:
                previous.result()
            previous = writer.submit(write, shard, whole)
        if previous:
            previous.result()


def _wanted(source: Source, shards: frozenset[int], plan: Plan) -> Iterator[Picture]:
    size = plan.settings["shard_images"]
    return (picture for place, picture in enumerate(source) if place // size in shards)


def _batches(
    pictures: Iterator[Decoded], shards: frozenset[int], plan: Plan, batch_size: int, most_pixels: float
) -> Iterator[tuple[int, list[Decoded]]]:
    """Consecutive pictures of one shard, at most `batch_size` and not too large together.

    A batch never reaches into the next shard: so it is the same whoever makes the shard, and whenever.
    """
    for shard in sorted(shards):
        batch: list[Decoded] = []
        n_pixels = 0
        for _ in range(plan.n_pictures(shard)):
            item = next(pictures)
            size = 0 if item.pixels is None else item.pixels.size // 3
            if len(batch) == batch_size or (batch and n_pixels + size > most_pixels):
                yield shard, batch
                batch, n_pixels = [], 0
            batch.append(item)
            n_pixels += size
        yield shard, batch


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """The function's results in the items' order, with at most `ahead` items in work."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _rows(faces: list[AlignedFace], recognizer: Recognizer, settings: ExtractSettings) -> Iterator[FaceRow]:
    templates = embed(np.stack([face.pixels for face in faces]), recognizer, flip=settings.flip)
    for face, template in zip(faces, templates, strict=True):
        yield FaceRow(
            image_id=face.image_id,
            identity=face.picture.identity,
            template=template,
            probability=face.probability,
            box=face.box,
            keypoints=face.keypoints,
            source_width=face.source_width,
            source_height=face.source_height,
            yaw=quality.yaw(face.keypoints),
            sharpness=quality.sharpness(face.pixels),
            interocular=quality.interocular(face.keypoints),
            jpeg=encoded_jpeg(face.pixels, settings.jpeg_quality),
            attributes=face.picture.attributes,
        )


def embed(
    faces: UInt8[np.ndarray, "batch height width 3"], recognizer: Recognizer, *, flip: bool
) -> Float32[np.ndarray, "batch d"]:
    """Templates of aligned RGB faces (0…255); with `flip` the mean of a face's template and its mirror image's."""
    with torch.inference_mode():
        # HWC pixels seen as CHW are channels-last already, which convolutions and pooling like best
        batch = torch.from_numpy(faces).to(recognizer.mean.device).permute(0, 3, 1, 2).float() / 255
        templates = recognizer(batch)
        if flip:
            templates = (templates + recognizer(batch.flip(-1))) / 2
    return templates.float().cpu().numpy()


def _wait_for(plan: Plan, share: Share, folder: Path) -> None:
    """The first process waits for everyone's shards, the others for the finished set."""
    while not all(has_shard(folder, number) for number in range(plan.n_shards)):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    while share.rank and not (folder / MARKER).is_file():
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _local(device: str) -> str:
    """With several processes on a machine each takes a GPU of its own."""
    n_devices = torch.cuda.device_count()
    if device in ("auto", "cuda") and n_devices and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % n_devices}"
    return device


def _metrics(templates: TemplateSet, n_pictures: int) -> dict[str, float]:
    probabilities = templates.column("probability")
    return {
        "n_images": float(n_pictures),
        "n_faces": float(len(templates)),
        "n_failures": float(templates.metadata["n_failures"]),
        "n_central_crops": float((probabilities == 0).sum()),
    }


def _metadata(settings: ExtractSettings, plan: Plan) -> dict[str, Any]:
    found = "MTCNN keypoints, least-squares similarity to the ArcFace template at 112 x 112"
    return {
        "source": plan.source,
        "recognizer": plan.recognizer,
        "alignment": "as given" if settings.aligned else found,
        "settings": settings.lasting,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
