"""Scores of Eqs. 91 and 92 by hand, their bounds, and the floor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlu_cli.audit.scoring import score, uniform_floor

_PAIRS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 50), min_size=n, max_size=n)] * 2)
)


def _same_total(first: list[int], second: list[int]) -> tuple[Tensor, Tensor]:
    """Both lists, the one with fewer labels filled up in its first class."""
    counts, truth = torch.tensor(first), torch.tensor(second)
    gap = int(counts.sum() - truth.sum())
    truth[0] += max(gap, 0) + 1
    counts[0] += max(-gap, 0) + 1
    return counts, truth


def test_by_hand() -> None:
    found = score(torch.tensor([4, 0, 3, 1, 2]), torch.tensor([5, 1, 3, 1, 0]))
    # Presence is wrong for classes 1 and 4; 4 + 0 + 3 + 1 + 0 of 10 labels are right; 2 of 5 exact.
    assert found.cacc == pytest.approx(3 / 5)
    assert found.iacc == pytest.approx(8 / 10)
    assert found.exact == pytest.approx(2 / 5)


@given(_PAIRS)
def test_scores_are_shares_and_whole_only_for_the_truth(pair: tuple[list[int], list[int]]) -> None:
    counts, truth = _same_total(*pair)
    found = score(counts, truth)
    assert 0 <= found.iacc <= 1
    assert 0 <= found.exact <= found.cacc <= 1
    assert (found.iacc == 1) == (found.exact == 1) == torch.equal(counts, truth)
    wrong = int((counts - truth).abs().sum())
    assert found.iacc == pytest.approx(1 - wrong / (2 * int(truth.sum())))
    assert score(truth, truth) == score(counts, counts)


@given(_PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(
    pair: tuple[list[int], list[int]], random: object
) -> None:
    counts, truth = _same_total(*pair)
    order = list(range(len(counts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert score(counts[order], truth[order]) == score(counts, truth)


def test_the_floor_is_that_of_an_even_guess() -> None:
    assert uniform_floor(torch.tensor([8, 8, 8, 8])) == score(*[torch.tensor([8, 8, 8, 8])] * 2)
    alone = uniform_floor(torch.tensor([32, 0, 0, 0]))
    assert alone.iacc == pytest.approx(1 / 4)
    assert alone.cacc == pytest.approx(1 / 4)
    assert alone.exact == 0
    uneven = uniform_floor(torch.tensor([5, 2, 0]))  # 7 labels: 3, 2, 2
    assert uneven.iacc == pytest.approx(5 / 7)
    assert uneven.exact == pytest.approx(1 / 3)
