"""Where images are made: everything that all images of one SAE have in common."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.visualization.making.dial import POSITIONS, dials
from fsae_mlflow.visualization.making.ensemble import Ensemble
from fsae_mlflow.visualization.making.optimization import Job, Record, optimize
from fsae_mlflow.visualization.making.saved import contact_sheet, missing, picture_of, save_picture, strip_of
from fsae_mlflow.visualization.making.transforms import Transforms
from fsae_mlflow.visualization.objectives.registry import load_objective
from fsae_mlflow.visualization.parametrizations.registry import load_parametrization
from fsae_mlflow.visualization.real_faces.prior import FacePrior
from fsae_mlflow.visualization.real_faces.reach import RealTemplates
from fsae_mlflow.visualization.real_faces.starts import Starts
from fsae_mlflow.visualization.settings import VisualizeSettings
from fsae_mlflow.visualization.targets import Target

OnImage = Callable[[Path, int], None]
"""Logs a picture of a series at a step."""


@dataclass(frozen=True, kw_only=True)
class Studio:
    """What makes images for an SAE. `start` gives the Starts of a name; `prior` is None where nothing needs it; `made`
    is a short hash of everything that decides how an image looks, beside its target and seed.
    """

    settings: VisualizeSettings
    sae: SparseAutoencoder
    recognizer: nn.Module
    real: RealTemplates
    prior: FacePrior | None
    start: Callable[[str], Starts]
    ensemble: Ensemble | None
    device: torch.device
    made: str

    def make(
        self, jobs: Sequence[Job], folder: Path, *, parametrization: str, label: str, on_image: OnImage | None = None
    ) -> list[Path]:
        """Make the image of every job that is not in `folder` yet, made in this way; give the paths of all.

        `on_image` gets a sheet of the first images that are made, at each record of their optimization.
        """
        paths = {folder / job.name: job for job in jobs}
        wanted = [paths[path] for path in missing(list(paths), made=self.made)]
        at_once = self.settings.images_at_once
        batches = [wanted[first : first + at_once] for first in range(0, len(wanted), at_once)]
        for number, batch in enumerate(batches):
            words = f"{label} {number + 1} of {len(batches)}"
            self._batch(batch, folder, parametrization, words, on_image if number == 0 else None)
        return list(paths)

    def _batch(self, jobs: Sequence[Job], folder: Path, name: str, label: str, on_image: OnImage | None) -> None:
        settings, kind = self.settings, load_parametrization(name)
        targets, generators = [job.target for job in jobs], [job.generator() for job in jobs]
        given: dict[str, Any] = {"prior": self.prior} if kind.needs_prior else {}
        if kind.default_start:
            given["start"] = self.start(settings.start or kind.default_start)(targets)
        parametrization = kind(generators, **given).to(self.device)
        ensemble = self.ensemble
        own = name == settings.parametrization
        words = [f"feature {target.name}" for target in targets]

        def on_images(images: torch.Tensor, record: Record) -> None:
            if on_image is not None:
                path = folder.parent / "steps" / f"step-{record.step:05d}.png"
                on_image(save_picture(contact_sheet(images, words), path, {"step": record.step}), record.step)

        made, records = optimize(
            parametrization,
            generators=generators,
            objective=load_objective(settings.objective)(self.sae, targets, self.real),
            recognizer=self.recognizer,
            steps=(own and settings.steps) or kind.default_steps,
            lr=(own and settings.lr) or kind.default_lr,
            transforms=Transforms(
                **{one: getattr(settings, one) for one in ("jitter", "scale", "rotation", "noise", "jpeg", "gray")}
            ),
            record_every=settings.record_every,
            ensemble=None if ensemble is None else lambda images: ensemble.objective(targets, images),
            on_images=on_images,
            label=label,
        )
        for place, (job, image) in enumerate(zip(jobs, made, strict=True)):
            history = [
                [one.step, float(one.objective[place]), float(one.activation[place]), float(one.norm[place])]
                for one in records
            ]
            about = {"target": job.target.name, "seed": job.seed, "parametrization": name}
            record = {"made": self.made, **about, "history": history}
            save_picture(picture_of(image), folder / job.name, record)

    def make_dials(self, targets: Sequence[Target], folder: Path) -> dict[Target, Path]:
        """Make the dial of every target that is not in `folder` yet; give the paths of all."""
        assert self.prior is not None
        paths: Mapping[Path, Target] = {folder / f"{target.stem}.png": target for target in targets}
        wanted = [paths[path] for path in missing(list(paths), made=self.made)]
        at_once = max(1, 4 * self.settings.images_at_once // len(POSITIONS))
        batches = [wanted[first : first + at_once] for first in range(0, len(wanted), at_once)]
        for number, batch in enumerate(batches):
            made = dials(
                batch,
                typical=self.start("typical")(batch),
                prior=self.prior,
                real=self.real,
                recognizer=self.recognizer,
                sae=self.sae,
                label=f"dial {number + 1} of {len(batches)}",
            )
            for dial in made:
                measured = {"reached": dial.reached.tolist(), "activation": dial.activation.tolist()}
                record = {"made": self.made, **measured}
                save_picture(strip_of(dial.images), folder / f"{dial.target.stem}.png", record)
        return {target: path for path, target in paths.items()}
