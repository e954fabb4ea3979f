"""Intervals: how often they hold, and that they stay where counts can be."""

from __future__ import annotations

import pytest
import torch

from rlu_cli.numerics.intervals import count_intervals, share_intervals

SHARES = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_they_hold_as_often_as_they_say(confidence: float) -> None:
    generator = torch.Generator().manual_seed(0)
    root = 0.01 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    errors = torch.randn(20_000, 4, generator=generator, dtype=torch.float64) @ root.T
    held = torch.zeros(4)
    for error in errors[:4000]:
        low, high = share_intervals(SHARES + error, root @ root.T, confidence)
        held += ((low <= SHARES) & (high >= SHARES)).float()
    # Bounds cut at zero can only hold more often.
    assert torch.allclose(held[:3] / 4000, torch.full((3,), confidence), atol=0.025)
    assert held[3] / 4000 >= confidence - 0.025


def test_counts_are_whole_within_zero_and_the_total_and_rounded_outwards() -> None:
    covariance = torch.diag(torch.tensor([0.04, 1e-6, 0.0, 4.0], dtype=torch.float64))
    low, high = count_intervals(SHARES, covariance, 10, 0.9)
    assert low.dtype == high.dtype == torch.int64
    assert low.tolist() == [1, 2, 2, 0]
    assert high.tolist() == [9, 4, 2, 10]
    wide = count_intervals(SHARES, covariance, 10, 0.99)
    assert bool((wide[0] <= low).all())
    assert bool((wide[1] >= high).all())
