"""A template set that version 0.1 wrote is read as it was."""

from pathlib import Path

import numpy as np

from fsae_mlflow.templates.set import TemplateSet

FOLDER = Path(__file__).parents[1] / "fixtures" / "version_0_1" / "templates"


def test_a_set_of_version_0_1_opens() -> None:
    templates = TemplateSet.open(FOLDER)
    assert "fsae_mlflow" not in templates.metadata  # it does not carry the version yet
    assert (len(templates), templates.width, templates.attributes) == (48, 8, {})
    assert templates.image_ids == [f"p{i // 4:02d}/{i:03d}.jpg" for i in range(48)]
    assert templates.identities.tolist() == [f"p{i // 4:02d}" for i in range(48)]
    np.testing.assert_allclose(
        templates.templates[0],
        [0.6166975, 3.1173117, -2.0807557, 1.9282358, -0.19466114, 0.73512685, 2.8781676, 4.112924],
        rtol=1e-6,
    )
    assert templates.column("probability").shape == (48,) and templates.column("keypoints").shape == (48, 10)
    assert [face.size for face in templates.faces([47, 0])] == [(112, 112)] * 2
    assert templates.failures == [("p00/blank.jpg", "no face found")]
    assert templates.digest == "ec28c41c1d5013a1"
