"""Pictures → shards of a template set: decode, cut, embed and write, all at the same time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.extraction.plan import Plan
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.faces import quality
from fsae_mlflow.faces.aligned import to_float
from fsae_mlflow.faces.cutting import AlignedFace, FaceCutter
from fsae_mlflow.faces.decoding import PICTURES_PER_TASK, Decoded, decoded
from fsae_mlflow.faces.images import encoded_jpeg
from fsae_mlflow.faces.pictures import Source
from fsae_mlflow.progress import progress
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.templates.schema import FaceRow
from fsae_mlflow.templates.writing import write_shard

PIXELS_PER_BATCH = 64_000_000  # a batch of large pictures must fit into memory too
FACES_PER_CALL = 16  # on a CPU, so that the recognizer's activations fit into the cache
THREADS_ON_CUDA = 2  # one batch is warped and written while another is in the networks

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batch:
    """The rows and failures of some consecutive pictures of one shard."""

    shard: int
    n_pictures: int
    rows: list[FaceRow]
    failures: list[tuple[str, str]]


def write_shards(
    shards: Sequence[int],
    plan: Plan,
    folder: Path,
    *,
    settings: ExtractSettings,
    source: Source,
    recognizer: Recognizer,
) -> None:
    """Write these shards of the plan, in ascending order; each is written while the next one is made.

    Raises: UserError if the recognizer gives a wrong template; OSError if remote storage or the disk fails.
    """
    device, width = recognizer.mean.device, recognizer.card.template_width
    on_cpu = device.type == "cpu"
    n_threads = (settings.threads or torch.get_num_threads()) if on_cpu else THREADS_ON_CUDA
    faces_per_call = FACES_PER_CALL if on_cpu else settings.batch_size
    cut = face_cutter(settings, device=device)

    def make(shard_and_pictures: tuple[int, list[Decoded]]) -> Batch:
        shard, pictures = shard_and_pictures
        faces, failures = cut(pictures)
        parts = (faces[first : first + faces_per_call] for first in range(0, len(faces), faces_per_call))
        rows = [row for part in parts for row in _rows(part, recognizer, settings)]
        return Batch(shard, len({id(face.picture) for face in faces}) + len(failures), rows, failures)

    def write(batches: list[Batch]) -> None:
        rows = [row for batch in batches for row in batch.rows]
        failures = [failure for batch in batches for failure in batch.failures]
        shard, n_pictures = batches[0].shard, sum(batch.n_pictures for batch in batches)
        if n_pictures != sizes[shard]:
            raise RuntimeError(f"shard {shard} accounts for {n_pictures} of {sizes[shard]} pictures")
        write_shard(folder, shard, rows, failures, width=width, n_pictures=n_pictures, attributes=source.attributes)

    sizes = {shard: plan.n_pictures(shard) for shard in shards}
    workers = min(settings.workers, -(-sum(sizes.values()) // PICTURES_PER_TASK))  # more would have no task
    pictures = (picture for place, picture in enumerate(source) if place // plan.shard_images in sizes)
    with (
        closing(decoded(pictures, workers=workers)) as ready,
        # One thread per batch instead of several per operation, because MTCNN's operations are too small to divide.
        ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as makers,
        ThreadPoolExecutor(1) as writer,
    ):
        shown = progress(ready, total=sum(sizes.values()), label="extract", unit="images")
        batches = _batches(shown, sizes, settings.batch_size, PIXELS_PER_BATCH / cut.growth)
        made = groupby(_in_order(makers, make, batches, n_threads + 1), key=lambda batch: batch.shard)
        for _ in _in_order(writer, write, (list(of_shard) for _, of_shard in made), 2):
            pass


def face_cutter(settings: ExtractSettings, *, device: torch.device) -> FaceCutter:
    """The face cutter that the settings ask for."""
    enlarge, pad = settings.before_detection
    return FaceCutter(
        aligned=settings.aligned,
        face=settings.face,
        no_face=settings.no_face,
        min_face=settings.min_face,
        min_face_share=settings.min_face_share,
        enlarge=enlarge,
        pad=pad,
        device=device,
    )


def templates_of(
    faces: Float[Tensor, "batch 3 h w"], recognizer: Recognizer, *, flip: bool
) -> Float[Tensor, "batch d"]:
    """Templates of aligned RGB faces (0…1); with `flip` the mean of a face's template and its mirror image's."""
    templates = recognizer(faces)
    return (templates + recognizer(faces.flip(-1))) / 2 if flip else templates


def embed(
    faces: UInt8[np.ndarray, "batch height width 3"], recognizer: Recognizer, *, flip: bool
) -> Float32[np.ndarray, "batch d"]:
    """Templates of aligned RGB faces (0…255); with `flip` the mean of a face's template and its mirror image's."""
    with torch.inference_mode():
        batch = to_float(torch.from_numpy(faces).to(recognizer.mean.device))
        templates = templates_of(batch, recognizer, flip=flip)
    return templates.float().cpu().numpy()


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


def _batches(
    pictures: Iterator[Decoded], sizes: Mapping[int, int], batch_size: int, max_pixels: float
) -> Iterator[tuple[int, list[Decoded]]]:
    """Consecutive pictures of one shard, at most `batch_size` and `max_pixels`; `sizes` has each shard's pictures.

    A batch never continues in the next shard, so it is the same in every process and after every interruption.
    """
    for shard, size in sizes.items():
        batch: list[Decoded] = []
        n_pixels = 0
        for _ in range(size):
            if (item := next(pictures, None)) is None:
                raise UserError("faces: pictures were removed from the source during the extraction; put them back.")
            n_more = 0 if item.pixels is None else item.pixels.size // 3
            if len(batch) == batch_size or (batch and n_pixels + n_more > max_pixels):
                yield shard, batch
                batch, n_pixels = [], 0
            batch.append(item)
            n_pixels += n_more
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
