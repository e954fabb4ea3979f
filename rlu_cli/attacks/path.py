"""The bias update read along the round: what the straight line between both models predicts.

Not in the paper: Algorithm 1 averages both ends of the round, and a client saturates early.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import LINE, Method
from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.numerics.progress import point_weights
from rlu_cli.numerics.simplex import Shares, coefficients, mixture
from rlu_cli.types import Evidence, Line, Recovery

_ROUNDS = 8  # of shares and progress in turn; they settle within a handful


@dataclass(frozen=True)
class Along:
    """Shares and progress that agree with each other.

    solution  of the least squares
    points    (S,) how much each point of the line counts
    """

    solution: Shares
    points: Tensor


def path(evidence: Evidence) -> Recovery:
    """Shares z of u = (I - S̄ᵀ) z with S̄ = Σ_s w_s S(s), solved together with the weights w.

    S(s) is the mean softmax of each class at θ_g + s (θ_c - θ_g); w_s is the time the client spends
    near s, which follows from the bias updates that z and S predict, each scheme's in-round weights
    included.
    """
    found = along(evidence, line_of(evidence))
    solution = found.solution
    return shared(
        evidence,
        solution.shares,
        solution.status,
        residual=solution.residual,
        condition=solution.condition,
        point_weights=found.points.tolist(),
    )


def line_of(evidence: Evidence) -> Line:
    """The images seen along the round. A method that needs them says so."""
    assert evidence.line is not None, "a method that needs the line says so"
    return evidence.line


def along(evidence: Evidence, line: Line) -> Along:
    """The shares of the bias update alone, and how much each point of the line counts."""
    confidence = confidence_along(line)
    signal = evidence.signal.double().cpu()
    weights = torch.full((len(line.points),), 1 / len(line.points), dtype=torch.float64)
    solution = _solve(evidence, confidence, weights, signal)
    for _ in range(_ROUNDS if len(line.points) > 1 else 0):
        weights = progress(evidence, line, solution.shares, confidence)
        solution = _solve(evidence, confidence, weights, signal)
    return Along(solution, weights)


def confidence_along(line: Line, importance: Tensor | None = None) -> Tensor:
    """S[n, j] at every point of the line, (S, N, N); `importance` as `class_means` has it."""
    return torch.stack([class_confidence(seen, importance) for seen in line.outputs])


def progress(evidence: Evidence, line: Line, shares: Tensor, confidence: Tensor) -> Tensor:
    """How much each point of the line counts under these shares, (S,).

    confidence  (S, N, N)  S[n, j] at every point
    """
    predicted = torch.einsum("n,snj->sj", shares, confidence)
    return point_weights(
        shares, predicted, line.points, evidence.signal.double().cpu(), evidence.weights
    )


def _solve(evidence: Evidence, confidence: Tensor, weights: Tensor, signal: Tensor) -> Shares:
    mean = torch.einsum("s,snj->nj", weights, confidence)
    return mixture(coefficients(mean, evidence.smoothing), signal)


METHOD = Method(
    title="path",
    paper="rlu, docs/method.md",
    build=lambda options: path,
    auxiliary=True,
    needs=frozenset({LINE}),
)
