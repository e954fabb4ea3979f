"""Where the labels went that a recovery missed: the solve, what Δb can show at all, or rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Half the L1 distance of each pair, a share of the labels.

    error     between the shares found and the weighted ones that Δb can show, P
    weights   between those and the plain shares: no reading of Δb avoids it
    rounding  between the shares found and the counts given
    """

    error: float
    weights: float
    rounding: float


def split_error(
    shares: Tensor, counts: Tensor, weights: Tensor, per_step: Sequence[Sequence[int]]
) -> Split:
    """Split the error of one recovery in three parts, which add up to an upper bound of 1 - iAcc.

    shares    (N,) found
    counts    (N,) given, summing to K
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
