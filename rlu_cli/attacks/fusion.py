"""Fusion: label shares from the bias update, the weight update and BatchNorm running means.

Not in the paper. On a trained model the bias update is small and its relative error large. The
files contain further measurements of the same labels:

- the weight update along the directions in which the mean embeddings of the classes differ. It has
  more rows than classes, so the *scale* of the errors e_y - p is identifiable too: the model was
  trained on the client's images, not on the server's, whose errors are larger by a common factor;
- the running means of the BatchNorm layers: the mean input of the client's own batches, which
  separates classes better the better the model is trained. They depend on neither learning rate nor
  optimiser. They are used alone if the update is not linear in the gradients, and they identify the
  learning rate if it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from itertools import product

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.fixed_point import BIAS, WEIGHTS, Assumptions, FixedPoint, solve_fixed_point
from rlu_cli.attacks.measurements import directions_of
from rlu_cli.attacks.method import Method, learned_something
from rlu_cli.attacks.observations import INTERPOLATION, REEVALUATION, TILT
from rlu_cli.attacks.path import along, confidence_along, path
from rlu_cli.numerics.fusion import Fused
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.numerics.progress import even_weights
from rlu_cli.numerics.simplex import coefficients, mixture
from rlu_cli.types import Evidence, Interpolation, Recovery

_TILTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2)
_PATH_POSITION_STDS = (0.0, 0.1, 0.3)
_COARSE = 4  # with many rows only every fourth tilt is tried, for speed
_MANY = 1_000
_PARTS = 4  # steps from 0 to the tilt implied by a given training accuracy or loss
_DOES_NOT_FIT = 10.0  # reduced chi-square above which a measurement is unusable
_MAX_REEVALUATIONS = 2  # with auxiliary statistics, each at the last estimate of the shares
_ANOTHER_KIND = (
    "the auxiliary images appear to be of another kind than the client's: BatchNorm layers "
    "normalised them with their own statistics, weighted by the estimated shares; images like the "
    "client's would give a better estimate"
)
_DROPPED = (
    "the weight update does not fit the prediction from the images, as when the embedding changes "
    "fast: the estimate uses only the bias update along the path"
)


def fusion(evidence: Evidence) -> Recovery:
    """Shares z of y = F z + noise over bias update, weight update and BatchNorm means.

    Rows of y: u, with e_y - p per image; the weight update along directions V of the embedding,
    with (e_y - p) eᵀV per image; the mean input of the last BatchNorm layer. Per-image values are
    averaged over the interpolation points. `numerics.fusion` derives the noise covariance. That of
    a measurement with a reduced chi-square above 1 is inflated by it (squared Birge ratio).

    On a trained model the client's images, which it was trained on, have smaller errors and lie
    further apart than the server's (generalization gap). With BatchNorm means this is modelled by
    weights p_y^β of the auxiliary images, and the estimate is the mean over β by likelihood.
    Without them the rows of the update have an unknown positive scale, which is estimated too, as
    is an unknown learning rate. If the update is not linear in the gradients, only the BatchNorm
    means are used.

    For a trained model the posterior mean of the shares is reported; for an untrained one with
    BatchNorm, the midpoint between this estimate and that of `path`.
    """
    interpolation = _in_double(evidence[INTERPOLATION])
    directions = directions_of(evidence, interpolation)
    if not interpolation.means and not evidence.linear:  # no usable measurement
        return shared(evidence, torch.zeros(evidence.classes), notes=interpolation.notes)
    if not interpolation.means and not (directions.shape[1] and learned_something(evidence)):
        return replace(path(evidence), notes=interpolation.notes)
    solution, interpolation = _reevaluated(
        evidence, interpolation, _expected(evidence, interpolation, directions)
    )
    fused, reduced_chi_square = solution.fused, solution.reduced_chi_square
    if reduced_chi_square.get(WEIGHTS, 0.0) > _DOES_NOT_FIT:
        return replace(path(evidence), notes=(*interpolation.notes, _DROPPED))
    # Without BatchNorm means the bias has the same errors as the weights, but too few rows to show
    # them. With BatchNorm means its own chi-square shows how far it disagrees with them.
    reference = BIAS if interpolation.means and learned_something(evidence) else WEIGHTS
    variance_inflation = max(1.0, reduced_chi_square.get(reference, 1.0))
    covariance = fused.covariance * variance_inflation
    shares = _shares_to_report(evidence, fused, covariance)
    answer = shared(
        evidence,
        shares,
        fused.status,
        notes=interpolation.notes,
        point_weights=solution.points.tolist(),
        reduced_chi_square=reduced_chi_square,
        misfit=reduced_chi_square,  # key up to schema 1.2
        tilt=solution.assumed.tilt,
        path_position_std=solution.assumed.path_position_std,
        path_slack=solution.assumed.path_position_std,  # key up to schema 1.2
        error_ratio=_error_ratio(evidence, fused),
    )
    rate = None if evidence.lr_known else _rate(fused, variance_inflation)
    return replace(
        answer,
        unconstrained=fused.unconstrained,
        covariance=covariance,
        shared_covariance=fused.shared_covariance,
        lr=rate,
    )


def _reevaluated(
    evidence: Evidence, interpolation: Interpolation, solution: FixedPoint
) -> tuple[FixedPoint, Interpolation]:
    """Solution with auxiliary batch statistics if its likelihood is higher, and its interpolation.

    Tried if the BatchNorm means of a trained model do not fit at all, as when the auxiliary images
    are of another kind than the client's: normalised with the client's statistics, they are unlike
    any images the model was trained on. The change made by the last re-evaluation is added to the
    covariance.
    """
    if not interpolation.means or not learned_something(evidence):
        return solution, interpolation
    if _worst(interpolation, solution) <= _DOES_NOT_FIT:
        return solution, interpolation
    for iteration in range(_MAX_REEVALUATIONS):
        reevaluated = evidence[REEVALUATION](solution.fused.shares)
        if reevaluated is None:
            break
        reevaluated = replace(_in_double(reevaluated), notes=(_ANOTHER_KIND,))
        other = _expected(evidence, reevaluated, directions_of(evidence, reevaluated))
        if other.fused.minus_two_log_likelihood >= solution.fused.minus_two_log_likelihood:
            break
        # The solution before the first re-evaluation used other statistics: no measure of error.
        change = (other.fused.shares - solution.fused.shares) * (iteration > 0)
        covariance = other.fused.covariance + torch.outer(change, change)
        solution, interpolation = (
            replace(other, fused=replace(other.fused, covariance=covariance)),
            reevaluated,
        )
    return solution, interpolation


def _worst(interpolation: Interpolation, solution: FixedPoint) -> float:
    """Largest reduced chi-square of the BatchNorm means."""
    return max(solution.reduced_chi_square[mean.layer] for mean in interpolation.means)


def _in_double(interpolation: Interpolation) -> Interpolation:
    """Logits and layer inputs as float64 on the CPU, converted once for all iterations."""
    means = (
        replace(mean, inputs=tuple(values.double().cpu() for values in mean.inputs))
        for mean in interpolation.means
    )
    outputs = (
        replace(values, logits=values.logits.double().cpu()) for values in interpolation.outputs
    )
    return replace(interpolation, outputs=tuple(outputs), means=tuple(means))


def _shares_to_report(evidence: Evidence, fused: Fused, covariance: Tensor) -> Tensor:
    """Shares to report (N,): the posterior mean for a trained model, else the least squares.

    For an untrained model the covariance consists of distances between estimates and is not that
    of a distribution.
    """
    mean = posterior_mean(fused.unconstrained, covariance) if learned_something(evidence) else None
    return fused.shares if mean is None else mean


def _error_ratio(evidence: Evidence, fused: Fused) -> float | None:
    """Scale of the client's errors e_y - p over the server's; None if not estimated."""
    known = evidence.lr_known and fused.factor is not None and fused.factor[0] > 0
    return 1 / fused.factor[0] if known and fused.factor is not None else None


def _rate(fused: Fused, variance_inflation: float) -> tuple[float, float] | None:
    """Learning rate η and its standard deviation, from the estimate of 1/η; None without one.

    variance_inflation  factor on the variance
    """
    if fused.factor is None or fused.factor[0] <= 0:
        return None
    inverse, error = fused.factor
    return 1 / inverse, error * variance_inflation**0.5 / inverse**2


def _expected(evidence: Evidence, interpolation: Interpolation, directions: Tensor) -> FixedPoint:
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
    dispersion = max(1.0, _worst(interpolation, best))
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
    fits = _worst(interpolation, plain) <= _DOES_NOT_FIT
    path_position_stds = (
        _PATH_POSITION_STDS if fits and len(interpolation.points) > 1 else _PATH_POSITION_STDS[:1]
    )
    yield from (Assumptions(*pair) for pair in product(tilts, path_position_stds) if any(pair))


METHOD = Method(
    title="fusion",
    paper="rlu, docs/method.md",
    attack=fusion,
    auxiliary=True,
    needs=frozenset({INTERPOLATION, REEVALUATION, TILT}),
    any_optimiser=True,
    needs_lr=False,
)
