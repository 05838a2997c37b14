"""A recognizer that needs no weights; as a script, an extraction with it to be killed or run beside another."""

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from fsae_mlflow.extraction import stage as extraction
from fsae_mlflow.extraction.settings import ExtractSettings
from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard

WIDTH = 16


class Delayed(nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.project = nn.Linear(3 * 8 * 8, WIDTH)

    def forward(self, faces: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return self.project(nn.functional.adaptive_avg_pool2d(faces, 8).flatten(1))


def load(name: str, *, card: str = "", seconds: float = 0.0) -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(Delayed(seconds), RecognizerCard(name=name, template_width=WIDTH))


def settings(faces: Path | str, output: Path | str, **more: object) -> ExtractSettings:
    plain = {"recognizer": "standin", "aligned": True, "workers": 0, "threads": 1, "batch_size": 2, "shard_images": 3}
    return ExtractSettings(faces=str(faces), output=str(output), **(plain | more))


if __name__ == "__main__":
    torch.set_num_threads(1)
    extraction.load_recognizer = lambda name, card: load(name, seconds=float(sys.argv[3]))
    extraction.extract(
        settings(sys.argv[1], sys.argv[2], workers=int(sys.argv[4])), on_metrics=lambda metrics, step: None
    )
