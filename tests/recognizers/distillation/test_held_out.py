"""What is measured on held-out people, with recognizers whose accuracy can be counted."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fsae_mlflow.recognizers.base import Recognizer
from fsae_mlflow.recognizers.card import RecognizerCard
from fsae_mlflow.recognizers.distillation.aligned_faces import AlignedFaces
from fsae_mlflow.recognizers.distillation.held_out import HeldOutFaces
from tests.recognizers.networks import Tones


class ByNumber(nn.Module):
    """Gives the n-th face that it sees the n-th of some templates."""

    def __init__(self, templates: torch.Tensor) -> None:
        super().__init__()
        self.templates, self.n_seen = templates, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, self.n_seen = self.n_seen, self.n_seen + len(images)
        return self.templates[first : self.n_seen]


def by_number(templates: torch.Tensor) -> Recognizer:
    return Recognizer(ByNumber(templates), RecognizerCard(name="by_number", template_width=templates.shape[1]))


def held_out(aligned: Path, rows: np.ndarray, templates: torch.Tensor) -> HeldOutFaces:
    return HeldOutFaces(AlignedFaces(str(aligned)), rows, by_number(templates), seed=0, device=torch.device("cpu"))


def test_a_template_per_person_verifies_everybody(aligned: Path) -> None:
    person = torch.arange(36) // 3
    perfect = nn.functional.one_hot(person, 12).float()
    faces = held_out(aligned, np.arange(36), perfect)
    metrics = faces.measure(by_number(perfect * 7))
    assert metrics == {"cosine": pytest.approx(1), "pair_accuracy": 1.0, "teacher_pair_accuracy": 1.0}
    everybody_the_same = faces.measure(by_number(torch.ones(36, 12)))
    assert everybody_the_same["pair_accuracy"] == 0.5
    assert everybody_the_same["cosine"] == pytest.approx(12**-0.5)


def test_too_few_people_leave_pair_accuracy_out(aligned: Path, caplog: pytest.LogCaptureFixture) -> None:
    recognizer = Recognizer(Tones(), RecognizerCard(name="tones", template_width=6))
    faces = HeldOutFaces(AlignedFaces(str(aligned)), np.arange(9), recognizer, seed=0, device=torch.device("cpu"))
    assert faces.measure(recognizer) == {"cosine": pytest.approx(1)}
    assert "needs four held-out identities, two of them with two faces; there are 3 and 3" in caplog.text


def test_the_number_of_pairs_is_bounded(tmp_path: Path, aligned: Path) -> None:
    lines = [f"{aligned / 'p00' / '0.png'},person{i // 40:02d}" for i in range(1000)]
    (tmp_path / "faces.csv").write_text("\n".join(["path,identity", *lines]))
    faces = HeldOutFaces(
        AlignedFaces(str(tmp_path / "faces.csv")),
        np.arange(1000),
        Recognizer(Tones(), RecognizerCard(name="tones", template_width=6)),
        seed=0,
        device=torch.device("cpu"),
    )
    assert faces.pairs is not None and len(faces.pairs) == 6000
