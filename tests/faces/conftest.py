"""The ORL pictures: real faces that come with a wheel the project needs anyway."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsae_mlflow.faces.sources.folder import orl


@pytest.fixture(scope="session")
def orl_files() -> list[Path]:
    """The first picture of each of 12 people."""
    return [Path(picture.location.path) for picture in orl() if picture.image_id.endswith("/1.pgm")][:12]


@pytest.fixture(scope="session")
def portraits(orl_files: list[Path]) -> list[np.ndarray]:
    """12 people, 184 x 224 RGB."""
    return [
        np.array(Image.open(path).convert("RGB").resize((184, 224), Image.Resampling.BICUBIC)) for path in orl_files
    ]
