import numpy as np
import pytest
from scipy.stats import hypergeom

from fsae_mlflow.features.statistics.hypergeometric import upper_tail
from fsae_mlflow.features.statistics.multiple import benjamini_hochberg


def test_q_is_the_smallest_rate_that_passes() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.9])
    q = benjamini_hochberg(p)
    assert q[[0, 2, 3, 4]] == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.9])
    assert np.isnan(q[1])
    assert np.isnan(benjamini_hochberg(np.full(3, np.nan))).all()


def test_the_tail_is_scipys() -> None:
    population = np.array(12)
    x, marked, drawn = np.meshgrid(np.arange(14), np.arange(13), np.arange(13), indexing="ij")
    tail = upper_tail(x, population=population, marked=marked, drawn=drawn)
    assert tail == pytest.approx(hypergeom.sf(x - 1, population, marked, drawn), abs=1e-12)


def test_small_tails_are_exact() -> None:
    found = upper_tail(np.array([29]), population=np.array(15_000), marked=np.array(900), drawn=np.array(30))
    assert found == pytest.approx(hypergeom.sf(28, 15_000, 900, 30), rel=1e-6)
