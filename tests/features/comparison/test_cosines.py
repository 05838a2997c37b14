import numpy as np
import pytest
import torch

from fsae_mlflow.features.comparison import cosines
from fsae_mlflow.features.comparison.cosines import antipode_share, antipodes, cosine_blocks


def test_the_antipode_is_the_smallest_cosine_with_another_alive_feature() -> None:
    # In order: d, −3d, a direction at 120° to d, one at right angles to all of these, and the opposite of that, dead.
    W_dec = torch.tensor([[1.0, 0, 0], [-3, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 2], [0, 0, -2]])
    alive = np.array([True, True, True, True, False])
    found = antipodes(W_dec, alive)
    assert found[:4] == pytest.approx([-1, -1, -0.5, 0], abs=1e-6)
    assert np.isnan(found[4])
    assert antipode_share(found) == 0.5


def test_features_without_another_have_no_antipode() -> None:
    for alive in ([False, False], [True, False]):
        found = antipodes(torch.eye(2), np.array(alive))
        assert np.isnan(found).all()
        assert antipode_share(found) == 0


def test_blocks_are_parts_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(7, 4), torch.randn(5, 4)
    expected = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2)
    monkeypatch.setattr(cosines, "AT_ONCE", 11)  # two rows at a time
    found = list(cosine_blocks(a, b))
    assert [first for first, _ in found] == [0, 2, 4, 6]
    torch.testing.assert_close(torch.cat([block for _, block in found]), expected)
