"""What the aligned faces of a template set look like: mean, principal components (eigenfaces), mean Fourier spectrum.

Eigenfaces: Turk and Pentland, "Eigenfaces for recognition", 1991. The components come from a randomized SVD (Halko et
al. 2011) of faces that are streamed, so memory does not grow with the set.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.faces.aligned import FACE_SIZE
from fsae_mlflow.files.atomic import atomic_write
from fsae_mlflow.progress import progress
from fsae_mlflow.templates.rows import drawn_rows
from fsae_mlflow.templates.set import TemplateSet

FILE = "eigenfaces.safetensors"
VERSION = "1"
N_COMPONENTS, N_FACES = 300, 16_384
FEWEST_FACES = 16
OVERSAMPLED, N_PASSES = 20, 2
FACES_AT_ONCE = 512

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FacePrior:
    """Statistics of aligned faces, RGB in 0…1.

    `components` are orthonormal, the first with the largest variance; `std`: the standard deviation of the faces along
    each. `magnitude`: the faces' mean absolute Fourier coefficients (rfft2, ortho). `coefficients`: the faces in `rows`
    along the components, divided by `std`.
    """

    mean: Float32[Tensor, "3 h w"]
    components: Float32[Tensor, "k 3 h w"]
    std: Float32[Tensor, " k"]
    magnitude: Float32[Tensor, "3 h half"]
    coefficients: Float32[Tensor, "n k"]
    rows: Int64[Tensor, " n"]

    @property
    def scaled_components(self) -> Float[Tensor, "k pixels"]:
        """The components with one standard deviation as length."""
        return self.components.flatten(1) * self.std[:, None]

    def coefficients_of(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Images along the components, from the mean face and divided by `std`."""
        return (images - self.mean).flatten(1) @ self.components.flatten(1).T / self.std

    @classmethod
    def of(cls, templates: TemplateSet) -> "FacePrior":
        """The statistics of a template set, read from beside it where they were computed before.

        At most N_FACES faces are used, of people drawn at random. Where the set's folder cannot be written to, they are
        computed anew each time.

        Raises: UserError for fewer than 16 faces, and where the set has no faces.
        """
        path = templates.folder / FILE
        key = f"{VERSION} {templates.digest}"
        if path.is_file() and (kept := _read(path, key)) is not None:
            return kept
        prior = cls.computed(templates, drawn_rows(templates.identities, N_FACES))
        tensors = {name: getattr(prior, name).contiguous() for name in cls.__dataclass_fields__}
        try:
            with atomic_write(path) as temporary:
                save_file(tensors, temporary, metadata={"key": key})
        except OSError as error:
            logger.warning("The eigenfaces are not kept beside the template set: %s", error)
        return prior

    @classmethod
    def computed(cls, templates: TemplateSet, rows: Int64[np.ndarray, " n"]) -> "FacePrior":
        """The statistics of the given rows, each once and ascending."""
        n, width = len(rows), 3 * FACE_SIZE**2
        if n < FEWEST_FACES:
            raise UserError(
                f"templates: eigenfaces take at least {FEWEST_FACES} faces; {templates.folder} has {n}. Extract more "
                "faces, or choose a parametrization without them, such as fourier."
            )
        k = min(N_COMPONENTS, n // 2)
        mean, magnitude = torch.zeros(width, dtype=torch.float64), torch.zeros(3, FACE_SIZE, FACE_SIZE // 2 + 1)
        for faces in _streamed(templates, rows, "mean face"):
            mean += faces.sum(0, dtype=torch.float64)
            magnitude += torch.fft.rfft2(faces.view(-1, 3, FACE_SIZE, FACE_SIZE), norm="ortho").abs().sum(0)
        mean = (mean / n).float()
        basis = torch.randn(width, min(k + OVERSAMPLED, n), generator=torch.Generator().manual_seed(0))
        for number in range(N_PASSES):
            product = torch.zeros_like(basis)
            for faces in _streamed(templates, rows, f"eigenfaces {number + 1} of {N_PASSES + 1}"):
                centered = faces - mean
                product += centered.T @ (centered @ basis)
            basis = torch.linalg.qr(product).Q
        label = f"eigenfaces {N_PASSES + 1} of {N_PASSES + 1}"
        projected = torch.cat([(faces - mean) @ basis for faces in _streamed(templates, rows, label)])
        variances, rotation = torch.linalg.eigh(projected.double().T @ projected.double() / n)
        best = variances.argsort(descending=True)[:k]
        std, rotation = variances[best].clamp(min=1e-12).sqrt().float(), rotation[:, best].float()
        return cls(
            mean=mean.view(3, FACE_SIZE, FACE_SIZE),
            components=(basis @ rotation).T.reshape(-1, 3, FACE_SIZE, FACE_SIZE).contiguous(),
            std=std,
            magnitude=magnitude / n,
            coefficients=projected @ rotation / std,
            rows=torch.from_numpy(rows),
        )


def _streamed(
    templates: TemplateSet, rows: Int64[np.ndarray, " n"], label: str
) -> Iterator[Float32[Tensor, "batch pixels"]]:
    batches = templates.pixels_in_order(rows, at_once=FACES_AT_ONCE)
    for pixels in progress(batches, total=len(rows), label=label, unit="faces", size=len):
        yield torch.from_numpy(pixels).permute(0, 3, 1, 2).flatten(1).float() / 255


def _read(path: Path, key: str) -> FacePrior | None:
    """What was kept in `path`, if it is of this set and of this version."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
        return FacePrior(**load_file(path))
    except (SafetensorError, OSError, TypeError) as error:
        logger.warning("%s cannot be read (%s); the eigenfaces are computed again.", path, error)
        return None
