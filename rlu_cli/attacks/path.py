"""Path: label shares from the bias update, with predictions along the line between both models.

Not in the paper. Algorithm 1 averages both ends of the round, but a client saturates early.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import Method
from rlu_cli.attacks.observations import INTERPOLATION
from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.numerics.progress import point_weights
from rlu_cli.numerics.simplex import Shares, coefficients, mixture
from rlu_cli.types import Evidence, Interpolation, Recovery

_MAX_ITERATIONS = 8  # of shares and point weights in turn; about five suffice


@dataclass(frozen=True)
class PathSolution:
    """Fixed point of shares and point weights.

    solution  of the least squares
    points    (S,) weights of the interpolation points, summing to 1
    """

    solution: Shares
    points: Tensor


def path(evidence: Evidence) -> Recovery:
    """Shares z of u = (I - S̄ᵀ) z with S̄ = Σ_s w_s S(s), solved jointly with the weights w.

    S(s) is the mean softmax of each class at θ_g + s (θ_c - θ_g). w_s is the weight of the steps
    near s; it follows from the bias updates predicted by z and S and the scheme's in-round weights.
    """
    fixed_point = along(evidence, evidence[INTERPOLATION])
    solution = fixed_point.solution
    return shared(
        evidence,
        solution.shares,
        solution.status,
        residual=solution.residual,
        condition=solution.condition,
        point_weights=fixed_point.points.tolist(),
    )


def along(evidence: Evidence, interpolation: Interpolation) -> PathSolution:
    """Shares from the bias update alone and weights of the interpolation points, in turn."""
    confidence = confidence_along(interpolation)
    signal = evidence.signal.double().cpu()
    weights = torch.full(
        (len(interpolation.points),), 1 / len(interpolation.points), dtype=torch.float64
    )
    solution = _solve(evidence, confidence, weights, signal)
    for _ in range(_MAX_ITERATIONS if len(interpolation.points) > 1 else 0):
        weights = progress(evidence, interpolation, solution.shares, confidence)
        solution = _solve(evidence, confidence, weights, signal)
    return PathSolution(solution, weights)


def confidence_along(interpolation: Interpolation, importance: Tensor | None = None) -> Tensor:
    """S[n, j] at every interpolation point, (S, N, N); `importance` as in `class_means`."""
    return torch.stack([class_confidence(outputs, importance) for outputs in interpolation.outputs])


def progress(
    evidence: Evidence, interpolation: Interpolation, shares: Tensor, confidence: Tensor
) -> Tensor:
    """Weights of the interpolation points under these shares, (S,) summing to 1.

    shares      (N,)       z
    confidence  (S, N, N)  S[n, j] at every point
    """
    predicted = torch.einsum("n,snj->sj", shares, confidence)
    return point_weights(
        shares, predicted, interpolation.points, evidence.signal.double().cpu(), evidence.weights
    )


def _solve(evidence: Evidence, confidence: Tensor, weights: Tensor, signal: Tensor) -> Shares:
    mean = torch.einsum("s,snj->nj", weights, confidence)
    return mixture(coefficients(mean, evidence.smoothing), signal)


METHOD = Method(
    title="path",
    paper="rlu, docs/method.md",
    attack=path,
    auxiliary=True,
    needs=frozenset({INTERPOLATION}),
)
