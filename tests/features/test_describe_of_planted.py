"""The whole stage on planted faces: from a template set and an SAE to readings that hold."""

from pathlib import Path

import numpy as np

from fsae_mlflow.features.describe import describe
from fsae_mlflow.features.settings import DescribeSettings
from tests.features.planted import every_truth, planted_faces, planted_features, planted_set, planted_templates
from tests.features.verdicts import verdicts


def test_readings_of_a_planted_set_hold(tmp_path: Path, jpeg: bytes) -> None:
    faces = planted_faces(400, seed=1)
    truths = every_truth(faces, strengths=(0.8,), densities=(0.1,), n_people=4, n_noise=3)
    features = planted_features(faces, truths, seed=1)
    templates, sae = planted_templates(faces, features, d_in=len(truths) + 8)
    found = describe(
        DescribeSettings(controls="none", device="cpu"),
        templates=planted_set(tmp_path / "set", faces, templates, jpeg),
        sae=sae,
        judge=None,
        about={},
        output=tmp_path / "described",
        on_metrics=lambda *_: None,
    )
    assert found is not None
    # An identity is the name of a folder there: p0007 is person 7.
    columns = dict(found.description.columns)
    columns["identity"] = np.array([name and str(int(name[1:])) for name in columns["identity"]], object)
    judged = [verdict for verdict in verdicts(columns, features) if verdict.truth.kind != "dead"]
    meaningful = [verdict.found for verdict in judged if verdict.truth.kind != "noise"]
    assert np.mean(meaningful) >= 0.85
    assert np.mean([bool(verdict.wrong) for verdict in judged]) <= 0.03
    np.testing.assert_allclose(found.description.activity.counts, features.entries.counts, atol=1)
