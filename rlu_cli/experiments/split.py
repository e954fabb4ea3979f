"""Decomposition of a recovery's error into estimation, step weighting and rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Parts of the error: half L1 distances, as shares of the labels.

    error     recovered shares to the true shares weighted by step, all that Δb determines: P
    weights   weighted to unweighted true shares: unavoidable for any estimate from Δb
    rounding  recovered shares to the returned counts
    """

    error: float
    weights: float
    rounding: float


def split_error(
    shares: Tensor, counts: Tensor, weights: Tensor, per_step: Sequence[Sequence[int]]
) -> Split:
    """Split the error of one recovery into three parts, whose sum bounds 1 - iAcc from above.

    shares    (N,) recovered shares
    counts    (N,) returned counts, summing to K
    weights   (m,) ρ of the final update
    per_step  (m, N) true labels of each step
    """
    labels = torch.tensor(per_step, dtype=torch.float64)
    rho = weights.double().cpu()
    weighted = (rho / rho.sum()) @ (labels / labels.sum(1, keepdim=True))
    plain = labels.sum(0) / labels.sum()
    given = counts.double() / counts.sum()
    return Split(
        error=_distance(shares, weighted),
        weights=_distance(weighted, plain),
        rounding=_distance(shares, given),
    )


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first.double().cpu() - second.double().cpu()).abs().sum()) / 2
