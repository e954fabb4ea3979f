"""Intervals, expected iAcc and floor of an answer, from its own error or another method's."""

from __future__ import annotations

import pytest
import torch

from rlu_cli.audit.credibility import credibility, posterior_of
from rlu_cli.numerics.posterior import Posterior, mixed_posterior, posterior
from rlu_cli.types import Recovery, Status

TRUE = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
CENTRING = torch.eye(4, dtype=torch.float64) - 0.25


def recovered(shares: torch.Tensor, deviation: float | None = None, total: int = 200) -> Recovery:
    covariance = None if deviation is None else deviation**2 * CENTRING
    counts = (shares * total).round().long()
    return Recovery(shares, counts, Status.SOLVED, covariance=covariance)


def of(deviation: float) -> Posterior:
    found = posterior(TRUE, deviation**2 * CENTRING, 200)
    assert found is not None
    return found


def test_nothing_is_known_without_any_error() -> None:
    assert credibility(recovered(TRUE), None, total=200, passes=1, confidence=0.9) is None
    assert posterior_of(recovered(TRUE), 200) is None


def test_an_answer_that_knows_its_error_is_judged_by_it() -> None:
    own = credibility(recovered(TRUE, 0.01), of(0.2), total=200, passes=1, confidence=0.9)
    assert own is not None
    assert own.own
    assert own.expected_iacc[0] > 0.97
    assert own.gain > 0.9


def test_another_answer_is_judged_by_the_reference_and_its_interval_reaches_to_it() -> None:
    wrong = torch.tensor([0.2, 0.2, 0.2, 0.4], dtype=torch.float64)
    judged = credibility(recovered(wrong), of(0.01), total=200, passes=1, confidence=0.9)
    assert judged is not None
    assert not judged.own
    assert judged.expected_iacc[0] == pytest.approx(0.6, abs=0.02)
    assert judged.count_low is not None
    assert judged.count_high is not None
    counts = recovered(wrong).counts
    assert counts is not None
    assert bool((judged.count_low <= counts).all())
    assert bool((counts <= judged.count_high).all())
    truth = (TRUE * 200).long()
    assert bool((judged.count_low <= truth).all())
    assert bool((truth <= judged.count_high).all())


def test_intervals_of_full_passes_are_multiples_of_them() -> None:
    judged = credibility(recovered(TRUE, 0.05, 600), None, total=600, passes=3, confidence=0.9)
    assert judged is not None
    assert judged.count_low is not None
    assert judged.count_high is not None
    assert bool((judged.count_low % 3 == 0).all())
    assert bool((judged.count_high % 3 == 0).all())


def test_without_a_batch_size_there_are_bounds_of_shares_alone() -> None:
    shares_only = Recovery(TRUE, None, Status.SOLVED, covariance=0.05**2 * CENTRING)
    judged = credibility(shares_only, None, total=None, passes=1, confidence=0.9)
    assert judged is not None
    assert judged.count_low is None
    assert judged.count_high is None
    assert bool((judged.low <= TRUE).all())


def test_a_mixture_lies_between_its_parts() -> None:
    other = posterior(TRUE.flip(0), 0.02**2 * CENTRING, 200)
    assert other is not None
    mixed = mixed_posterior([of(0.02), other], [0.75, 0.25])
    assert mixed.mean.numpy() == pytest.approx((0.75 * of(0.02).mean + 0.25 * other.mean).numpy())
    assert mixed.draws.sum(1).numpy() == pytest.approx(1)
    low, high = mixed.interval(0.9)
    assert bool((low <= torch.minimum(TRUE, TRUE.flip(0)) + 0.05).all())
    assert bool((high >= torch.maximum(TRUE, TRUE.flip(0)) - 0.05).all())
