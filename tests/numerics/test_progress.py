"""Where on the line between both models the steps are: rounds whose answer is known beforehand."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.progress import even_weights, point_weights
from rlu_cli.schemes import Recursion, step_weights

POINTS = (0.0, 0.5, 1.0)
SHARES = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)
START = torch.full((4,), 0.25, dtype=torch.float64)


def _plain(steps: int, **settings: Any) -> Tensor:
    return step_weights(Recursion((0.05,) * steps, **settings))


def _fading(end: float, points: tuple[float, ...] = POINTS) -> Tensor:
    """P (S, N) of a pull z - P that falls exponentially along the line, to `end` of the first."""
    pull = torch.tensor([end**point for point in points], dtype=torch.float64)
    return SHARES - pull[:, None] * (SHARES - START)


def _weights(
    predicted: Tensor,
    weights: Tensor,
    *,
    shares: Tensor = SHARES,
    points: tuple[float, ...] = POINTS,
    factor: float = 1.0,
) -> Tensor:
    """With the update of a client whose gradients are those of the start, times `factor`."""
    return point_weights(shares, predicted, points, factor * (SHARES - START), weights)


def _centre(weights: Tensor, points: tuple[float, ...] = POINTS) -> float:
    return float(weights @ torch.tensor(points, dtype=torch.float64))


SCHEMES = {
    "one step": _plain(1),
    "plain": _plain(10),
    "momentum": _plain(10, momentum=0.9),
    "pull": _plain(10, pull=5.0),
    "decay": _plain(10, decay=0.5),
}
PREDICTED = {
    "constant": _fading(1.0),
    "fading": _fading(0.1),
    "gone": _fading(1e-9),
    "rising": _fading(3.0),
    "backwards": 2 * SHARES - _fading(1.0),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("predicted", PREDICTED)
def test_the_weights_sum_to_one_and_none_is_negative(predicted: str, scheme: str) -> None:
    found = _weights(PREDICTED[predicted], SCHEMES[scheme])
    assert found.shape == (3,)
    assert found.dtype == torch.float64
    assert float(found.sum()) == pytest.approx(1, abs=1e-12)
    assert (found >= 0).all()


def test_one_point_has_it_all() -> None:
    assert _weights(START[None], _plain(1), points=(0.0,)).tolist() == [1.0]
    assert even_weights((0.0,), 5).tolist() == [1.0]


def test_a_single_step_is_taken_at_the_start() -> None:
    assert _weights(_fading(0.2), _plain(1)).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("steps", [2, 5, 10, 400])
def test_constant_gradients_average_the_line_evenly(steps: int) -> None:
    """Step τ is at τ/m: the mean place is (m - 1)/2m."""
    found = _weights(_fading(1.0), _plain(steps))
    torch.testing.assert_close(found, even_weights(POINTS, steps))
    assert _centre(found) == pytest.approx((steps - 1) / (2 * steps), abs=1e-9)


def test_many_even_steps_weigh_the_points_as_the_trapezoid_rule_does() -> None:
    expected = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    torch.testing.assert_close(even_weights(POINTS, 100_000), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("points", [(0.0, 1.0), POINTS, (0.0, 0.1, 0.6, 1.0)])
@pytest.mark.parametrize("end", [0.5, 0.05, 1.8])
def test_an_exponentially_fading_pull_is_followed_exactly(
    end: float, points: tuple[float, ...]
) -> None:
    """The mean of P over the steps, and so the update, whatever points it is interpolated from.

    In many small steps s moves at a rate that is proportional to the pull end^s, so that the mean
    pull over the time is 1 / ∫ end^-s ds = ln(1/end) / (1/end - 1).
    """
    predicted = _fading(end, points)
    mean = math.log(1 / end) / (1 / end - 1)
    truth = SHARES - mean * (SHARES - START)
    found = _weights(predicted, _plain(800), points=points, factor=mean)
    torch.testing.assert_close(found @ predicted, truth, rtol=0, atol=2e-3)


def test_a_client_that_saturates_early_spends_its_time_near_the_end() -> None:
    centres = [_centre(_weights(_fading(end), _plain(20))) for end in (1.0, 0.5, 0.1, 0.02)]
    assert all(one < other - 0.02 for one, other in pairwise(centres))


@pytest.mark.parametrize("end", [1.0, 0.3])
def test_momentum_lags_and_a_leash_leads(end: float) -> None:
    """Where the steps that ρ counts are: γ counts early ones more, and starts slowly."""
    predicted = _fading(end)
    plain = _centre(_weights(predicted, _plain(10)))
    momenta = [_centre(_weights(predicted, _plain(10, momentum=g))) for g in (0.3, 0.6, 0.9)]
    leashes = [_centre(_weights(predicted, _plain(10, pull=pull))) for pull in (1.0, 3.0, 5.0)]
    assert plain > momenta[0] > momenta[1] > momenta[2]
    assert plain < leashes[0] < leashes[1] < leashes[2]


@pytest.mark.parametrize("predicted", [SHARES.expand(3, 4), PREDICTED["backwards"]])
def test_a_prediction_that_goes_nowhere_falls_back_to_even_steps(predicted: Tensor) -> None:
    torch.testing.assert_close(_weights(predicted, _plain(7)), even_weights(POINTS, 7))


def test_an_update_of_nothing_falls_back_to_even_steps() -> None:
    found = _weights(_fading(0.5), _plain(7), factor=0.0)
    torch.testing.assert_close(found, even_weights(POINTS, 7))


@pytest.mark.parametrize("factor", [1e-3, 0.1, 7.0, 1e4])
@pytest.mark.parametrize("scheme", ["plain", "momentum", "pull"])
def test_the_size_of_the_update_does_not_matter(scheme: str, factor: float) -> None:
    """A learning rate given wrongly, or not at all: only ratios of the pulls are seen."""
    right = _weights(_fading(0.2), SCHEMES[scheme])
    other = _weights(_fading(0.2), SCHEMES[scheme], factor=factor)
    torch.testing.assert_close(other, right, rtol=0, atol=1e-3)


def test_relabelled_classes_change_nothing() -> None:
    order = torch.tensor([2, 0, 3, 1])
    predicted = _fading(0.3) + 0.01 * torch.tensor([[0, 0, 0, 0], [1, -1, 1, -1], [2, -1, -1, 0]])
    update, weights = SHARES - START, _plain(10, momentum=0.5)
    one = point_weights(SHARES, predicted, POINTS, update, weights)
    other = point_weights(SHARES[order], predicted[:, order], POINTS, update[order], weights)
    torch.testing.assert_close(other, one)
