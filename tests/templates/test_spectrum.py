from pathlib import Path

import numpy as np
import pytest

from fsae_mlflow.templates.set import TemplateSet
from fsae_mlflow.templates.spectrum import Spectrum, spectrum
from tests.template_sets import TemplateWriter, face_row


def written(folder: Path, x: np.ndarray, jpeg: bytes) -> TemplateSet:
    with TemplateWriter(folder, width=x.shape[1], metadata={}, shard_rows=90) as writer:
        writer.write(face_row(f"p/{i}.png", row, jpeg) for i, row in enumerate(x))
    return TemplateSet.open(folder)


def test_templates_in_a_planted_subspace_have_its_dimensions(tmp_path: Path, jpeg: bytes) -> None:
    numbers = np.random.default_rng(0)
    basis = np.linalg.qr(numbers.normal(size=(24, 24)))[0]
    # A mean of length 1 and deviations in 5 dimensions, all of one length; noise holds 1e-6 of the variance.
    deviations = 0.01 * numbers.choice([-1.0, 1.0], size=(400, 5)) @ basis[1:6]
    x = basis[0] + deviations + 1e-5 / 2 * numbers.normal(size=(400, 24))
    found = spectrum(written(tmp_path, 30 * x * numbers.uniform(1, 2, size=(400, 1)), jpeg))
    assert [found.dimensions(percent) for percent in (90.0, 99.0, 99.99)] == [5, 5, 5]
    assert found.participation_ratio == pytest.approx(5, rel=0.02)
    assert found.metrics == {
        "spectrum/participation_ratio": found.participation_ratio,
        "spectrum/dimensions_90": 5,
        "spectrum/dimensions_99": 5,
        "spectrum/dimensions_99.99": 5,
    }


def test_shards_add_up_to_the_variances_of_the_whole(template_set: TemplateSet) -> None:
    x = template_set.templates.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2 / len(x)
    np.testing.assert_allclose(spectrum(template_set).variances, expected, atol=1e-14)


def test_a_share_takes_the_fewest_components_that_hold_it() -> None:
    found = Spectrum(np.array([6.0, 3.0, 0.5, 0.5]))
    assert [found.dimensions(percent) for percent in (60.0, 60.1, 90.0, 95.0, 99.0)] == [1, 2, 2, 3, 4]
    assert found.participation_ratio == pytest.approx(100 / 45.5)


def test_equal_templates_have_no_dimension(tmp_path: Path, jpeg: bytes) -> None:
    found = spectrum(written(tmp_path, np.full((3, 7), 0.3), jpeg))
    assert (found.participation_ratio, found.dimensions(99.99)) == (0, 0)
