"""Bias, weights and BatchNorm buffers together: three witnesses of the same labels.

Not in the paper. On a trained model the bias update vanishes and its small errors are blown up.
What else the files hold:

- the update of the weights, along the directions in which the classes' embeddings differ. It has
  more rows than there are classes, and so tells the *scale* of the errors too: a client's images
  were trained on, the server's were not, and their errors are larger by a common factor;
- the running means of the BatchNorm layers: the mean input of the client's own batches, which a
  trained model separates by class all the better. They owe nothing to learning rate or optimiser,
  so that they answer alone where the update cannot be read, and tell the rate where it is unknown.
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
_COARSE = 4  # where there are many rows, only every fourth tilt is tried
_MANY = 1_000
_PARTS = 4  # of the exponent that a training accuracy makes, where one is told
_DOES_NOT_FIT = 10.0  # misfit from which on a witness says nothing of how far another is off
_MAX_REEVALUATIONS = 2  # at images of another kind, each from the last answer
_ANOTHER_KIND = (
    "the auxiliary images look to be of another kind than the client's: every BatchNorm layer "
    "normalises them with their own statistics, weighted to the shares found; images like the "
    "client's would tell more"
)
_DROPPED = (
    "the weights' update does not fit what the images predict, as when the embedding moves fast: "
    "the answer is that of the bias along the path"
)


def fusion(evidence: Evidence) -> Recovery:
    """Shares z that explain the update's bias and weights and the BatchNorm means, by their noise.

    Rows: e_y - p, whose mean over the client's images is u; (e_y - p) eᵀV along directions V of
    the embedding; the mean inputs of the last BatchNorm layer; all averaged over the points of the
    line. `numerics.fusion` counts the noise. A witness whose rows fit worse than their noise
    allows is widened by the square of that.

    On a trained model the client's images, which were trained on, have smaller errors and lie
    further apart than the server's. With BatchNorm means that is a weighting p_y^β of the auxiliary
    images, and the answer the mean over β by likelihood; without them the update's rows are known
    up to a positive factor, which is found as well. A rate that nobody told is such a factor too.
    Of a client that is not linear in its gradients the BatchNorm means are read alone.

    Of a trained model the mean of all shares that the error allows is reported, of an untrained one
    with BatchNorm the middle of this answer and that of `path`.
    """
    interpolation = _in_double(evidence[INTERPOLATION])
    directions = directions_of(evidence, interpolation)
    if not interpolation.means and not evidence.linear:  # nothing is left to read
        return shared(evidence, torch.zeros(evidence.classes), notes=interpolation.notes)
    if not interpolation.means and not (directions.shape[1] and learned_something(evidence)):
        return replace(path(evidence), notes=interpolation.notes)
    solution, interpolation = _reevaluated(
        evidence, interpolation, _expected(evidence, interpolation, directions)
    )
    fused, reduced_chi_square = solution.fused, solution.reduced_chi_square
    if reduced_chi_square.get(WEIGHTS, 0.0) > _DOES_NOT_FIT:
        return replace(path(evidence), notes=(*interpolation.notes, _DROPPED))
    # Without BatchNorm means the bias shares the weights' errors, but has no rows to spare that
    # would show them; beside the means its own misfit shows how far the two disagree.
    judge = BIAS if interpolation.means and learned_something(evidence) else WEIGHTS
    variance_inflation = max(1.0, reduced_chi_square.get(judge, 1.0))
    covariance = fused.covariance * variance_inflation
    shares = _shares_to_report(evidence, fused, covariance)
    answer = shared(
        evidence,
        shares,
        fused.status,
        notes=interpolation.notes,
        point_weights=solution.points.tolist(),
        reduced_chi_square=reduced_chi_square,
        misfit=reduced_chi_square,  # its name up to schema 1.2
        tilt=solution.assumed.tilt,
        path_position_std=solution.assumed.path_position_std,
        path_slack=solution.assumed.path_position_std,  # its name up to schema 1.2
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
    """The answer under the statistics of the auxiliary images themselves where it is likelier.

    Tried where the BatchNorm means of a trained model do not fit at all, as when the images are of
    another kind than the client's: normalised with its statistics they look like no images that
    the model knows. What the last look changed is in its error.
    """
    if not interpolation.means or not learned_something(evidence):
        return solution, interpolation
    if _worst(interpolation, solution) <= _DOES_NOT_FIT:
        return solution, interpolation
    for look in range(_MAX_REEVALUATIONS):
        seen = evidence[REEVALUATION](solution.fused.shares)
        if seen is None:
            break
        seen = replace(_in_double(seen), notes=(_ANOTHER_KIND,))
        other = _expected(evidence, seen, directions_of(evidence, seen))
        if other.fused.minus_two_log_likelihood >= solution.fused.minus_two_log_likelihood:
            break
        # The first look was at other statistics: how far it was off tells nothing of this one.
        apart = (other.fused.shares - solution.fused.shares) * (look > 0)
        covariance = other.fused.covariance + torch.outer(apart, apart)
        solution, interpolation = (
            replace(other, fused=replace(other.fused, covariance=covariance)),
            seen,
        )
    return solution, interpolation


def _worst(interpolation: Interpolation, solution: FixedPoint) -> float:
    """The largest misfit of the BatchNorm means."""
    return max(solution.reduced_chi_square[mean.layer] for mean in interpolation.means)


def _in_double(interpolation: Interpolation) -> Interpolation:
    """The line's logits and layer inputs as float64 on the CPU, once for all rounds."""
    means = (
        replace(mean, inputs=tuple(seen.double().cpu() for seen in mean.inputs))
        for mean in interpolation.means
    )
    outputs = (replace(seen, logits=seen.logits.double().cpu()) for seen in interpolation.outputs)
    return replace(interpolation, outputs=tuple(outputs), means=tuple(means))


def _shares_to_report(evidence: Evidence, fused: Fused, covariance: Tensor) -> Tensor:
    """The shares to report: of a trained model the mean of all that the error allows.

    Of an untrained one the error is a distance, and no distribution of shares.
    """
    mean = posterior_mean(fused.unconstrained, covariance) if learned_something(evidence) else None
    return fused.shares if mean is None else mean


def _error_ratio(evidence: Evidence, fused: Fused) -> float | None:
    """The client's errors over the server's, where the factor between them was found."""
    known = evidence.lr_known and fused.factor is not None and fused.factor[0] > 0
    return 1 / fused.factor[0] if known and fused.factor is not None else None


def _rate(fused: Fused, variance_inflation: float) -> tuple[float, float] | None:
    """η and its standard deviation, from 1/η and its own.

    widening  factor on the variance
    """
    if fused.factor is None or fused.factor[0] <= 0:
        return None
    inverse, error = fused.factor
    return 1 / inverse, error * variance_inflation**0.5 / inverse**2


def _expected(evidence: Evidence, interpolation: Interpolation, directions: Tensor) -> FixedPoint:
    """The mean answer over `_assumptions` by their likelihood, its error with what they disagree.

    Slack makes the bias say less, and must be worth log D for D rows (Schwarz's criterion).
    BatchNorm means that fit worse than their noise allows make all differences smaller, by their
    misfit (quasi-likelihood).
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
    solution = [plain, *others]
    price = math.log(evidence.classes + sum(len(mean.mean) for mean in interpolation.means))
    paid = [price * (one.assumed.path_position_std > 0) for one in solution]
    costs = [
        one.fused.minus_two_log_likelihood + extra
        for one, extra in zip(solution, paid, strict=True)
    ]
    best = solution[costs.index(min(costs))]
    dispersion = max(1.0, _worst(interpolation, best))
    costs = [
        one.fused.minus_two_log_likelihood / dispersion + extra
        for one, extra in zip(solution, paid, strict=True)
    ]
    likelihoods = torch.softmax(-torch.tensor(costs, dtype=torch.float64) / 2, 0)
    return _mean(solution, likelihoods, best)


def _averaged(
    evidence: Evidence, interpolation: Interpolation, directions: Tensor, plain: FixedPoint
) -> FixedPoint:
    """The mean answer over β from 0 to the one that was told, its error with their spread.

    Images weighted by p_y^β have smaller errors, and so does a factor on all of them: how much
    of the gap is the one and how much the other the update's rows cannot tell.
    """
    tilt = evidence[TILT]
    assert tilt is not None
    tilts = [tilt * part / _PARTS for part in range(1, _PARTS + 1)]
    solution = [
        plain,
        *(solve_fixed_point(evidence, interpolation, directions, Assumptions(t)) for t in tilts),
    ]
    even = torch.full((len(solution),), 1 / len(solution), dtype=torch.float64)
    return _mean(solution, even, solution[len(solution) // 2])


def _mean(solution: Sequence[FixedPoint], weights: Tensor, named: FixedPoint) -> FixedPoint:
    """The mean answer and what it assumes, its error with the spread; the rest as `named` has it.

    weights  of the answers, summing to 1
    """
    fused = [one.fused for one in solution]

    def mean(values: Sequence[Tensor]) -> Tensor:
        total: Tensor = torch.tensordot(weights, torch.stack(list(values)), 1)
        return total

    shares, unconstrained, covariance, shared_covariance = (
        mean([getattr(one, name) for one in fused])
        for name in ("shares", "unconstrained", "covariance", "shared_covariance")
    )
    apart = torch.stack([one.shares for one in fused]) - shares
    factors = torch.tensor([one.factor or (0.0, 0.0) for one in fused], dtype=torch.float64)
    factor = float(weights @ factors[:, 0])
    error = float(weights @ (factors[:, 1] ** 2 + (factors[:, 0] - factor) ** 2)) ** 0.5
    tilt, path_position_std = mean(
        [torch.tensor(astuple(one.assumed), dtype=torch.float64) for one in solution]
    ).tolist()
    answer = replace(
        named.fused,
        shares=shares,
        unconstrained=unconstrained,
        covariance=covariance + (apart * weights[:, None]).T @ apart,
        shared_covariance=shared_covariance,
        factor=(factor, error) if named.fused.factor else None,
    )
    points = mean([one.points for one in solution])
    return FixedPoint(Assumptions(tilt, path_position_std), answer, points, named.names)


def _halfway(evidence: Evidence, interpolation: Interpolation, solution: FixedPoint) -> FixedPoint:
    """Half fusion, half `path`, of an untrained model whose BatchNorm means drift with its layers.

    There the means fit badly and the path leaves the line, and nothing in the files tells which of
    the two is further off. The error has half the distance between them, and half the variance that
    it would have if the client were taken to move by equal steps.
    """
    if not (evidence.linear and evidence.lr_known) or learned_something(evidence):
        return solution
    apart = (solution.fused.shares - along(evidence, interpolation).solution.shares) / 2
    shares = solution.fused.shares - apart
    even = even_weights(interpolation.points, evidence.steps)
    confidence = torch.einsum("s,snj->nj", even, confidence_along(interpolation))
    signal = evidence.signal.double().cpu()
    moved = mixture(coefficients(confidence, evidence.smoothing), signal).shares - shares
    distances = torch.outer(apart, apart) + torch.outer(moved, moved) / 2
    fused = replace(
        solution.fused,
        shares=shares,
        unconstrained=solution.fused.unconstrained - apart,
        covariance=solution.fused.covariance + distances,
    )
    return replace(solution, fused=fused)


def _assumptions(
    evidence: Evidence, interpolation: Interpolation, plain: FixedPoint
) -> Iterator[Assumptions]:
    """What else than the plain case may hold: on a trained model seen by bias and BatchNorm means.

    Either alone is explained by some shares whatever is assumed. BatchNorm means that fit badly
    themselves cannot tell how far off the path is: the bias stays the anchor.
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
