"""The SAE that a training started with: what the same settings give before they learn anything."""

import logging
from pathlib import Path

import numpy as np

from fsae_mlflow.errors import UserError
from fsae_mlflow.machine.memory import machine_memory
from fsae_mlflow.parameters import parse
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.saved import read_config
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.stage import trained_on
from fsae_mlflow.sae.training.start import start
from fsae_mlflow.templates.set import TemplateSet

NEEDED = {"variant", "expansion", "seed"}

logger = logging.getLogger(__name__)


def initial_sae(folder: Path, templates: TemplateSet) -> SparseAutoencoder | None:
    """The untrained SAE of the same settings and seed as the one in `folder`, scaled to its training rows of
    `templates`; to all rows, where it was trained on another set.

    None where its directions were computed, not trained, and, after a warning, where config.json does not hold the
    settings of a training with this version.
    """
    values = read_config(folder)["settings"]
    try:
        if not values.keys() >= NEEDED:
            raise UserError(f"they lack {', '.join(sorted(NEEDED - values.keys()))}")
        settings = parse(TrainSettings, values)
    except UserError as error:
        logger.warning("%s: no untrained SAE can be made from the settings in config.json (%s).", folder, error)
        return None
    if settings.variant.directions:
        logger.info("%s: its directions are computed, so that there is no untrained SAE to compare it with.", folder)
        return None
    rows = trained_on(folder, templates)
    data = TrainingData(templates, np.ones(len(templates), bool) if rows is None else rows, machine_memory())
    space, sae = start(settings, data)
    sae = space.in_template_space(sae)
    sae.origin = templates.origin
    return sae.eval().requires_grad_(False)
