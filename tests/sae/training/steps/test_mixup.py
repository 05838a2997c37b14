import torch

from fsae_mlflow.sae.training.steps.mixup import mixup

TEMPLATES = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 3, 2000)[:, None]


def test_a_share_of_the_rows_becomes_mixtures_of_two() -> None:
    found = mixup(TEMPLATES, 0.3, torch.Generator().manual_seed(1))
    changed = (found != TEMPLATES).any(dim=1)
    assert 0.25 < changed.float().mean() < 0.35
    assert len(mixup(TEMPLATES[:1], 1.0, torch.Generator())) == 1


def test_a_mixture_lies_between_its_parts_in_direction_and_length() -> None:
    pair = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    found = mixup(pair.repeat(100, 1), 1.0, torch.Generator().manual_seed(1))
    assert (found >= -1e-6).all()
    share = found[:, 1] / found.sum(dim=1)
    length = found.norm(dim=1)
    assert length.min() >= 2 - 1e-4 and length.max() <= 4 + 1e-4
    assert torch.corrcoef(torch.stack([share, length]))[0, 1] > 0.95


def test_a_mixture_by_hand() -> None:
    found = mixup(torch.tensor([[2.0, 0.0], [0.0, 4.0]]).repeat(500, 1), 1.0, torch.Generator().manual_seed(1))
    x, y = found[(found > 0).all(dim=1)].T
    w = 2 / (2 + y / x)  # x : y = 2 w : 4 (1 - w)
    torch.testing.assert_close(torch.hypot(x, y), 2 * w + 4 * (1 - w), rtol=1e-4, atol=1e-4)
    assert 0.45 < w.mean() < 0.55 and w.min() < 0.05 and w.max() > 0.95
    assert not mixup(torch.zeros(4, 3), 1.0, torch.Generator()).any()


def test_no_share_changes_nothing() -> None:
    assert mixup(TEMPLATES, 0.0, torch.Generator()) is TEMPLATES
