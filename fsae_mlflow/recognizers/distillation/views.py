"""What a student looks at: aligned faces from files, and a pool of augmented views with the teacher's templates."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.distillation.augmentation import augment
from fsae_mlflow.recognizers.distillation.settings import DistillSettings

T = TypeVar("T")
SIZE = 112
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


class AlignedFaces:
    """Aligned faces in a folder per identity, read when asked for.

    Raises: ValueError for a folder that is missing or holds fewer than two identities.
    """

    def __init__(self, folder: str) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise ValueError(f"faces must be a folder with one sub-folder per identity; {folder} is not there.")
        self.paths = sorted(path for path in root.glob("*/*") if path.suffix.lower() in SUFFIXES)
        names, self.identities = np.unique([path.parent.name for path in self.paths], return_inverse=True)
        if len(names) < 2:
            raise ValueError(f"faces must hold two identities or more, a sub-folder each; {folder} holds {len(names)}.")

    def read(self, rows: np.ndarray) -> Float[Tensor, "batch 3 112 112"]:
        """The faces of these rows, RGB, 0…1."""
        pixels = np.stack([self._pixels(self.paths[row]) for row in rows])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255

    @staticmethod
    def _pixels(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                face = image.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"Face {path} cannot be read ({error}); remove it.") from error
        return np.asarray(face if face.size == (SIZE, SIZE) else face.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


class ViewPool:
    """Views with the teacher's templates; new ones push out the oldest, and each is drawn several times meanwhile."""

    def __init__(
        self,
        faces: AlignedFaces,
        rows: np.ndarray,
        teacher: Recognizer,
        settings: DistillSettings,
        device: torch.device,
    ) -> None:
        self.faces, self.rows, self.teacher, self.settings, self.device = faces, rows, teacher, settings, device
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.order = np.random.default_rng(settings.seed)
        self.queue = np.empty(0, dtype=np.int64)

    def batches(self, n_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (uint8 RGB, channels last in memory) and the teacher's templates, `n_steps` times."""
        n_fresh = max(self.settings.batch_size // self.settings.replays, 2)
        n_again = self.settings.batch_size - n_fresh
        n_pool = max(self.settings.pool // n_fresh, -(-n_again // n_fresh)) * n_fresh
        images = torch.empty(n_pool, SIZE, SIZE, 3, dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)
        targets = torch.empty(n_pool, self.teacher.card.template_width, device=self.device)
        n_filled = 0
        while n_filled < n_pool and n_filled < n_again:
            images[n_filled : n_filled + n_fresh], targets[n_filled : n_filled + n_fresh] = self._fresh(n_fresh)
            n_filled += n_fresh
        for _ in range(n_steps):
            fresh_images, fresh_targets = self._fresh(n_fresh)
            again = torch.randperm(min(n_filled, n_pool), generator=self.generator)[:n_again]
            yield torch.cat([images[again], fresh_images]), torch.cat([targets[again], fresh_targets])
            oldest = n_filled % n_pool
            images[oldest : oldest + n_fresh], targets[oldest : oldest + n_fresh] = fresh_images, fresh_targets
            n_filled += n_fresh

    def _fresh(self, n: int) -> tuple[Tensor, Tensor]:
        while len(self.queue) < n:
            self.queue = np.concatenate([self.queue, self.order.permutation(self.rows)])
        rows, self.queue = self.queue[:n], self.queue[n:]
        settings = self.settings
        views = augment(
            self.faces.read(rows), strength=settings.strength, mixup=settings.mixup, generator=self.generator
        )
        images = (views * 255).round().to(torch.uint8).to(self.device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), autocast(settings, self.device):
            return images, self.teacher(images.float() / 255).float()


def ahead(items: Iterator[T], threads: int) -> Iterator[T]:
    """The same items, each made in a second thread while the one before is used: teacher and student then work at once.

    On CPUs that others use too, two networks of one thread each are several times faster than one network on two,
    which wait for each other.
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
