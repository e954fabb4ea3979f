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

from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.fixed_point import BIAS, WEIGHTS, FixedPoint
from rlu_cli.attacks.measurements import directions_of
from rlu_cli.attacks.method import Method, learned_something
from rlu_cli.attacks.model_averaging import DOES_NOT_FIT, averaged_fixed_point, worst_fit
from rlu_cli.attacks.observations import INTERPOLATION, REEVALUATION, TILT
from rlu_cli.attacks.path import path
from rlu_cli.numerics.fusion import Fused
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.types import Evidence, Interpolation, Recovery

_MAX_REEVALUATIONS = 2  # with auxiliary statistics, each at the last estimate of the shares
_ANOTHER_KIND = (
    "the auxiliary images appear to be of another kind than the client's: BatchNorm layers "
    "normalised them with their own statistics, weighted by the estimated shares; images like the "
    "client's would give a better estimate"
)
_DROPPED = (
    "the weight update does not match what the auxiliary images predict, as when the embedding "
    "changes fast, and was not used: these are the counts of path"
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
        evidence, interpolation, averaged_fixed_point(evidence, interpolation, directions)
    )
    fused, reduced_chi_square = solution.fused, solution.reduced_chi_square
    if reduced_chi_square.get(WEIGHTS, 0.0) > DOES_NOT_FIT:
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
    if worst_fit(interpolation, solution) <= DOES_NOT_FIT:
        return solution, interpolation
    for iteration in range(_MAX_REEVALUATIONS):
        reevaluated = evidence[REEVALUATION](solution.fused.shares)
        if reevaluated is None:
            break
        reevaluated = replace(_in_double(reevaluated), notes=(_ANOTHER_KIND,))
        other = averaged_fixed_point(evidence, reevaluated, directions_of(evidence, reevaluated))
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


METHOD = Method(
    title="fusion",
    paper="rlu, docs/method.md",
    attack=fusion,
    auxiliary=True,
    needs=frozenset({INTERPOLATION, REEVALUATION, TILT}),
    any_optimiser=True,
    needs_lr=False,
)
