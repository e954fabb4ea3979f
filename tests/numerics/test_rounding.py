"""Largest remainder: whole, not negative, summing to K, each count next to its share."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rlu_cli.numerics.rounding import round_to_total

_WEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=60).filter(lambda w: sum(w) > 0)


def _shares(weights: list[float]) -> torch.Tensor:
    tensor = torch.tensor(weights, dtype=torch.float64)
    return tensor / tensor.sum()


@given(_WEIGHTS, st.integers(0, 10**7))
def test_counts_are_whole_and_sum_to_the_total(weights: list[float], total: int) -> None:
    shares = _shares(weights)
    counts = round_to_total(shares, total)
    assert counts.dtype == torch.int64
    assert (counts >= 0).all()
    assert int(counts.sum()) == total
    assert ((counts - shares * total).abs() < 1 + 1e-6).all()


@given(
    weights=st.lists(st.integers(1, 10**6), unique=True, min_size=1, max_size=40),
    total=st.integers(1, 10**5),
    order=st.randoms(use_true_random=False),
)
def test_reordered_classes_reorder_the_counts(
    weights: list[int], total: int, order: Random
) -> None:
    """Exact ties apart: two classes with the same remainder are served in class order."""
    shares = _shares(list(map(float, weights)))
    remainders = (shares * total).frac().sort().values
    assume(len(weights) < 2 or float(remainders.diff().min()) > 1e-9)
    mixed = list(range(len(weights)))
    order.shuffle(mixed)
    assert torch.equal(round_to_total(shares[mixed], total), round_to_total(shares, total)[mixed])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60).filter(any))
def test_shares_of_whole_counts_give_the_counts_back(counts: list[int]) -> None:
    assert round_to_total(_shares([float(c) for c in counts]), sum(counts)).tolist() == counts


def test_the_largest_remainder_comes_first_and_nothing_is_lost_as_by_rounding_down() -> None:
    shares = torch.tensor([0.46, 0.29, 0.25], dtype=torch.float64)
    assert round_to_total(shares, 10).tolist() == [5, 3, 2]
