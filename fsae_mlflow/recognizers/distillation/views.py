"""The images that a student is trained on: a pool of augmented views with the teacher's templates."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fsae_mlflow.faces.aligned import FACE_SIZE, to_float, to_pixels
from fsae_mlflow.machine.memory import require_memory
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces
from fsae_mlflow.recognizers.distillation.augmentation import augment
from fsae_mlflow.recognizers.distillation.settings import DistillSettings

T = TypeVar("T")
Views = tuple[UInt8[Tensor, "n h w 3"], Float[Tensor, "n d"]]
"""RGB pixels (0…255) and the teacher's templates of exactly these pixels."""


class ViewPool:
    """Views with the teacher's templates. Each view is drawn several times until a new one replaces it."""

    def __init__(
        self,
        faces: AlignedFaces,
        rows: Int64[np.ndarray, " faces"],
        teacher: Recognizer,
        settings: DistillSettings,
        device: torch.device,
    ) -> None:
        self.faces, self.rows, self.teacher, self.settings, self.device = faces, rows, teacher, settings, device
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.order = np.random.default_rng(settings.seed)
        self.queue = np.empty(0, dtype=np.int64)
        # Views are bytes in the pool, and floats while a batch of them is made.
        n_bytes = 3 * FACE_SIZE**2 * (settings.pool + 4 * settings.batch_size)
        require_memory(n_bytes, f"pool={settings.pool} with batch_size={settings.batch_size}", "use smaller ones")

    def batches(self, n_steps: int) -> Iterator[Views]:
        """`n_steps` batches: 1 / `replays` of each is new, the rest is drawn from the pool."""
        n_new = max(self.settings.batch_size // self.settings.replays, 2)
        n_again = self.settings.batch_size - n_new
        n_pool = max(self.settings.pool // n_new, -(-n_again // n_new)) * n_new
        images = torch.empty(n_pool, FACE_SIZE, FACE_SIZE, 3, dtype=torch.uint8, device=self.device)
        targets = torch.empty(n_pool, self.teacher.card.template_width, device=self.device)
        n_filled = 0
        while n_filled < n_pool and n_filled < n_again:
            images[n_filled : n_filled + n_new], targets[n_filled : n_filled + n_new] = self._new(n_new)
            n_filled += n_new
        for _ in range(n_steps):
            new_images, new_targets = self._new(n_new)
            again = torch.randperm(min(n_filled, n_pool), generator=self.generator)[:n_again]
            yield torch.cat([images[again], new_images]), torch.cat([targets[again], new_targets])
            oldest = n_filled % n_pool
            images[oldest : oldest + n_new], targets[oldest : oldest + n_new] = new_images, new_targets
            n_filled += n_new

    def _new(self, n: int) -> Views:
        while len(self.queue) < n:
            self.queue = np.concatenate([self.queue, self.order.permutation(self.rows)])
        rows, self.queue = self.queue[:n], self.queue[n:]
        faces, settings = to_float(self.faces.read(rows)), self.settings
        views = augment(faces, strength=settings.strength, mixup=settings.mixup, generator=self.generator)
        images = torch.from_numpy(to_pixels(views)).to(self.device)
        with torch.no_grad(), autocast(settings, self.device):
            return images, self.teacher(to_float(images)).float()


def ahead(items: Iterator[T], threads: int) -> Iterator[T]:
    """The same items, each made in a second thread while the one before is used: teacher and student work at once.

    On CPUs that others use too, two networks with one thread each are several times faster than one network with two
    threads, which wait for each other.
    """
    with ThreadPoolExecutor(
        1, initializer=torch.set_num_threads, initargs=(threads or torch.get_num_threads(),)
    ) as worker:
        coming = worker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = worker.submit(next, items, None)
            yield item


def autocast(settings: DistillSettings, device: torch.device) -> torch.autocast:
    """The context in which convolutions use the chosen precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
