"""Aligned faces, a teacher and settings that train in a second."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.distillation import stage
from fsae_mlflow.recognizers.distillation.settings import DistillSettings
from tests.recognizers.networks import small_network

N_PEOPLE, PER_PERSON, WIDTH = 12, 3, 8


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per person with pictures of a colored gradient of its own and noise."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, 112)
    for person in range(N_PEOPLE):
        tones = rng.uniform(0, 255, (2, 3))
        base = tones[0] * ramp[:, None, None] + tones[1] * (1 - ramp)[None, :, None] * ramp[::-1, None, None]
        (folder / f"p{person:02d}").mkdir()
        for i in range(PER_PERSON):
            pixels = np.clip(base + rng.normal(0, 10, (112, 112, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"p{person:02d}" / f"{i}.png")
    return folder


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Recognizer:
    recognizer = Recognizer(small_network(WIDTH), RecognizerCard(name="teacher", template_width=WIDTH))
    monkeypatch.setattr(stage, "load_recognizer", lambda name, card: recognizer)
    return recognizer


@pytest.fixture
def settings(aligned: Path) -> DistillSettings:
    return DistillSettings(
        teacher="onnx:teacher.onnx",
        faces=str(aligned),
        backbone="lcnet_035",
        backbone_args="{}",
        head_width=32,
        epochs=12,
        batch_size=8,
        pool=64,
        holdout=0.34,
        ema=0.8,
        precision="fp32",
        device="cpu",
    )
