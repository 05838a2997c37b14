"""From what describe wrote to the readings that a registered model carries."""

from pathlib import Path

import numpy as np

from fsae_mlflow.features.suppression import NAMES
from fsae_mlflow.features.table import Description
from fsae_mlflow.tracking.models.readings import READINGS_FILE, Shipped


def write_shipped(description: Description, folder: Path) -> Path:
    """Write readings.json to `folder`: the sentences and the confirmed names of a description."""
    columns = description.columns
    names = {kind: np.asarray(name(columns)).astype(str).tolist() for kind, name in NAMES.items()}
    sentences = columns["reading"].astype(str).tolist()
    Shipped(templates=description.about["templates"], reading=sentences, **names).write(folder / READINGS_FILE)
    return folder / READINGS_FILE
