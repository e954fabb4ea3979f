"""The fixed point averaged over what may be assumed of the client beyond its labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from itertools import product

import torch
from torch import Tensor

from rlu_cli.attacks.fixed_point import Assumptions, FixedPoint, solve_fixed_point
from rlu_cli.attacks.method import learned_something
from rlu_cli.attacks.observations import TILT
from rlu_cli.attacks.path import along, confidence_along
from rlu_cli.numerics.progress import even_weights
from rlu_cli.numerics.simplex import coefficients, mixture
from rlu_cli.types import Evidence, Interpolation

_TILTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
_PATH_POSITION_STDS = (0.0, 0.1, 0.3)
_COARSE = 4  # with many rows only every fourth tilt is tried, for speed
_MANY = 1_000
_PARTS = 4  # steps from 0 to the tilt implied by a given training accuracy or loss
DOES_NOT_FIT = 10.0  # reduced chi-square above which a measurement is unusable


def averaged_fixed_point(
    evidence: Evidence, interpolation: Interpolation, directions: Tensor
) -> FixedPoint:
    """Mean solution over `_assumptions`, weighted by likelihood, with their spread in the error.

    An uncertain path position weakens the bias and costs log D for D rows (Schwarz criterion). If
    the BatchNorm means have a reduced chi-square above 1, log-likelihoods are divided by it
    (quasi-likelihood).
    """
    plain = solve_fixed_point(evidence, interpolation, directions, Assumptions())
    if evidence[TILT] and not interpolation.means:
        return _averaged(evidence, interpolation, directions, plain)
    others = [
        solve_fixed_point(evidence, interpolation, directions, assumed, near=plain)
        for assumed in _assumptions(evidence, interpolation, plain)
    ]
    if not others:
        return _halfway(evidence, interpolation, plain)
    solutions = [plain, *others]
    log_rows = math.log(evidence.classes + sum(len(mean.mean) for mean in interpolation.means))
    penalties = [log_rows * (one.assumed.path_position_std > 0) for one in solutions]
    costs = [
        one.fused.minus_two_log_likelihood + penalty
        for one, penalty in zip(solutions, penalties, strict=True)
    ]
    best = solutions[costs.index(min(costs))]
    dispersion = max(1.0, worst_fit(interpolation, best))
    costs = [
        one.fused.minus_two_log_likelihood / dispersion + penalty
        for one, penalty in zip(solutions, penalties, strict=True)
    ]
    likelihoods = torch.softmax(-torch.tensor(costs, dtype=torch.float64) / 2, 0)
    return _mean(solutions, likelihoods, best)


def _averaged(
    evidence: Evidence, interpolation: Interpolation, directions: Tensor, plain: FixedPoint
) -> FixedPoint:
    """Mean solution over β from 0 to the given one, with their spread in the error.

    Weights p_y^β reduce the errors e_y - p of the auxiliary images, and so does the unknown scale.
    The rows of the update cannot separate the two.
    """
    tilt = evidence[TILT]
    assert tilt is not None
    tilts = [tilt * part / _PARTS for part in range(1, _PARTS + 1)]
    solutions = [
        plain,
        *(solve_fixed_point(evidence, interpolation, directions, Assumptions(t)) for t in tilts),
    ]
    uniform = torch.full((len(solutions),), 1 / len(solutions), dtype=torch.float64)
    return _mean(solutions, uniform, solutions[len(solutions) // 2])


def _mean(
    solutions: Sequence[FixedPoint], weights: Tensor, representative: FixedPoint
) -> FixedPoint:
    """Weighted mean of solutions, with their spread in the covariance.

    weights         of the solutions, summing to 1
    representative  solution that provides the remaining fields, such as the reduced chi-square
    """
    fused = [one.fused for one in solutions]

    def mean(values: Sequence[Tensor]) -> Tensor:
        total: Tensor = torch.tensordot(weights, torch.stack(list(values)), 1)
        return total

    shares, unconstrained, covariance, shared_covariance = (
        mean([getattr(one, name) for one in fused])
        for name in ("shares", "unconstrained", "covariance", "shared_covariance")
    )
    deviations = torch.stack([one.shares for one in fused]) - shares
    factors = torch.tensor([one.factor or (0.0, 0.0) for one in fused], dtype=torch.float64)
    factor = float(weights @ factors[:, 0])
    error = float(weights @ (factors[:, 1] ** 2 + (factors[:, 0] - factor) ** 2)) ** 0.5
    tilt, path_position_std = mean(
        [torch.tensor(astuple(one.assumed), dtype=torch.float64) for one in solutions]
    ).tolist()
    averaged = replace(
        representative.fused,
        shares=shares,
        unconstrained=unconstrained,
        covariance=covariance + (deviations * weights[:, None]).T @ deviations,
        shared_covariance=shared_covariance,
        factor=(factor, error) if representative.fused.factor else None,
    )
    points = mean([one.points for one in solutions])
    return FixedPoint(Assumptions(tilt, path_position_std), averaged, points, representative.names)


def _halfway(evidence: Evidence, interpolation: Interpolation, solution: FixedPoint) -> FixedPoint:
    """Midpoint of fusion and `path`, for an untrained model with BatchNorm means.

    There the BatchNorm means fit badly because the layers below change, the path leaves the
    straight line, and the files do not show which of the two is more biased. The covariance gets
    the outer product of half the difference, and half that of the distance to the solution for a
    client that moves by equal steps.
    """
    if not (evidence.linear and evidence.lr_known) or learned_something(evidence):
        return solution
    half = (solution.fused.shares - along(evidence, interpolation).solution.shares) / 2
    shares = solution.fused.shares - half
    equal_steps = even_weights(interpolation.points, evidence.steps)
    confidence = torch.einsum("s,snj->nj", equal_steps, confidence_along(interpolation))
    signal = evidence.signal.double().cpu()
    shift = mixture(coefficients(confidence, evidence.smoothing), signal).shares - shares
    distances = torch.outer(half, half) + torch.outer(shift, shift) / 2
    fused = replace(
        solution.fused,
        shares=shares,
        unconstrained=solution.fused.unconstrained - half,
        covariance=solution.fused.covariance + distances,
    )
    return replace(solution, fused=fused)


def _assumptions(
    evidence: Evidence, interpolation: Interpolation, plain: FixedPoint
) -> Iterator[Assumptions]:
    """Alternatives to the plain assumptions, for a trained model with bias and BatchNorm means.

    Under any assumption some shares explain either measurement alone. BatchNorm means that fit
    badly do not identify the path position, which is then exact.
    """
    if not (evidence.linear and interpolation.means and learned_something(evidence)):
        return
    rows = sum(len(mean.mean) for mean in interpolation.means)
    tilts = _TILTS if rows < _MANY else _TILTS[::_COARSE]
    if (tilt := evidence[TILT]) is not None:
        tilts = tuple(tilt * part / _PARTS for part in range(_PARTS + 1))
    fits = worst_fit(interpolation, plain) <= DOES_NOT_FIT
    path_position_stds = (
        _PATH_POSITION_STDS if fits and len(interpolation.points) > 1 else _PATH_POSITION_STDS[:1]
    )
    yield from (Assumptions(*pair) for pair in product(tilts, path_position_stds) if any(pair))


def worst_fit(interpolation: Interpolation, solution: FixedPoint) -> float:
    """Largest reduced chi-square of the BatchNorm means."""
    return max(solution.reduced_chi_square[mean.layer] for mean in interpolation.means)
