"""The compiled loops one by one, and who holds a place, against plain NumPy."""

import numpy as np
import pytest
import torch

from fsae_mlflow.sae.fused import entries, kernels
from tests.sae.making import new_sae


def test_halving_rounds_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(40, 33, generator=generator)
    # Halfway between two numbers of bfloat16: to the even one.
    weights[0] = (torch.arange(33, dtype=torch.int32) * 0x8000 + 0x3F800000).view(torch.float32)
    half, norms = np.empty(weights.shape, np.uint16), np.empty(40, np.float32)
    kernels.halve(0, 40, weights.numpy(), half, norms)
    np.testing.assert_array_equal(half.view(np.int16), weights.bfloat16().view(torch.int16).numpy())
    np.testing.assert_allclose(norms, weights.norm(dim=1).numpy(), rtol=1e-6)


def test_ordered_bits_sort_as_their_numbers_do() -> None:
    numbers = torch.tensor([-torch.inf, -300.0, -2.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 2.0, 300.0, torch.inf])
    bits = numbers.bfloat16().view(torch.int16).numpy()
    found = [int(kernels.ordered(one)) for one in bits]
    assert found == sorted(found) and len(set(found)) == len(found)


def test_entries_are_above_the_floor_and_candidates_also_on_it() -> None:
    p = np.array([[1.0, 2.0, 3.0, 2.0], [5.0, -1.0, 0.0, 6.0]], np.float32)
    floor, counts = np.array([2.0, 0.0], np.float32), np.empty(2, np.int64)
    kernels.count_above(0, 2, p, floor, counts)
    assert counts.tolist() == [1, 2]
    rows, values = np.empty(3, np.int32), np.empty(3, np.float32)
    kernels.take_above(0, 2, p, floor, np.array([0, 1, 3]), rows, values)
    assert rows.tolist() == [2, 0, 3] and values.tolist() == [3, 5, 6]
    half, limit = (torch.from_numpy(array).bfloat16().view(torch.int16).numpy() for array in (p, floor))
    kernels.count_above_half(0, 2, half, limit, counts)
    assert counts.tolist() == [3, 3]
    rows = np.empty(6, np.int32)
    kernels.take_above_half(0, 2, half, limit, np.array([0, 3, 6]), rows)
    assert rows.tolist() == [1, 2, 3, 0, 2, 3]
    values, kept = np.array([2, 3, 2, 5, 0, 6], np.float32), np.empty(3, np.int64)
    kernels.keep_above(np.array([0, 3, 6]), rows, values, floor, kept)
    assert kept.tolist() == [0, 1, 3] and rows[:3].tolist() == [2, 0, 3] and values[:3].tolist() == [3, 5, 6]


def test_the_largest_stay_in_order_and_earlier_ones_where_equal() -> None:
    value = np.array([3, 1, 2, 2, 2, 5, 9], np.float32)  # the last is not among the six
    row, feature = np.arange(7, dtype=np.int32), np.arange(10, 17, dtype=np.int32)
    assert kernels.keep_largest(value, row, feature, 6, 4) == 2
    assert value[:4].tolist() == [3, 2, 2, 5]
    assert row[:4].tolist() == [0, 2, 3, 5] and feature[:4].tolist() == [10, 12, 13, 15]


@pytest.mark.parametrize("n_groups", [1, 3, 10])
def test_a_group_s_places_go_to_its_largest_positive_values(n_groups: int) -> None:
    batch, room, d_sae = 10, 4, 30
    rng = np.random.default_rng(0)
    p, bias = rng.normal(size=(d_sae, batch)).astype(np.float32), rng.normal(size=d_sae).astype(np.float32)
    p[:, 9] = -9  # the last row fires nothing
    places = entries.Places(batch, n_groups, room, p.dtype)
    for first in range(0, d_sae, 7):
        features = np.arange(first, min(first + 7, d_sae), dtype=np.int32)
        places.offer(p[features], bias[features], features)
    value, row, feature = places.winners()
    group = np.arange(batch) * n_groups // batch
    expected = set()
    for one in range(n_groups):
        scores = np.where(group == one, p + bias[:, None], -np.inf)
        best = np.argsort(scores, axis=None)[::-1][:room]
        expected |= {(int(i // batch), int(i % batch)) for i in best if scores.flat[i] > 0}
    assert set(zip(feature.tolist(), row.tolist(), strict=True)) == expected and len(value) == len(expected)
    np.testing.assert_array_equal(value, p[feature, row] + bias[feature])


@pytest.mark.parametrize(
    ("n_threads", "n", "multiple", "ranges"),
    [
        (1, 100, 1, [(0, 100)]),
        (3, 100, 16, [(0, 48), (48, 96), (96, 100)]),
        (3, 100, 1, [(first, min(first + 9, 100)) for first in range(0, 100, 9)]),
        (3, 1, 1, [(0, 1)]),
    ],
)
def test_ranges_cover_everything_once(
    n_threads: int, n: int, multiple: int, ranges: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    found: list[tuple[int, int]] = []
    kernels.parallel_for(lambda first, last, to: to.append((first, last)), n, found, multiple=multiple)
    assert sorted(found) == ranges


def test_what_a_thread_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def failing(first: int, last: int) -> None:
        raise ValueError("a fault in a kernel")

    with pytest.raises(ValueError, match="a fault in a kernel"):
        kernels.parallel_for(failing, 100)


def test_spans_end_with_prefixes_and_have_at_least_64_features(monkeypatch: pytest.MonkeyPatch) -> None:
    sae = new_sae("matryoshka", 4, 800, n_prefixes=2, k=3)
    monkeypatch.setattr(entries, "BLOCK_ENTRIES", 3000)
    assert list(entries.spans(sae, 10)) == [(0, 300), (300, 400), (400, 700), (700, 800)]
    assert [last - first for first, last in entries.spans(sae, 1000)] == 2 * [64, 64, 64, 64, 64, 64, 16]


@pytest.mark.parametrize("screened", [False, True])
def test_a_tenth_of_the_entries_is_still_sparse(screened: bool) -> None:
    sae = new_sae("relu", 1, 10)
    with torch.no_grad():
        sae.W_enc.fill_(1)
    for n_above, is_sparse in ((1, True), (2, False)):
        centered = torch.full((10, 1), -1.0)
        centered[:n_above] = 1
        (block,) = entries.above_floor(sae, centered, screened=screened)
        assert isinstance(block, entries.SparseBlock) == is_sparse
        if is_sparse:
            assert block.rows.tolist() == [0] * 10 and block.indptr.tolist() == list(range(11))
            assert block.p.tolist() == [1] * 10


def test_screening_needs_float32_and_a_processor_that_multiplies_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, pays in (({"avx512bf16": True}, True), ({"amx-bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(entries, "get_host_cpu_features", lambda found=features: found)
        assert entries.screening_pays(torch.float32) == pays
        assert not entries.screening_pays(torch.float64)
