"""Intervals of label counts from the covariance of their shares."""

from __future__ import annotations

from scipy.stats import norm
from torch import Tensor


def share_intervals(shares: Tensor, covariance: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bound (N,) of every share: z ± q σ within 0…1, q of the normal.

    shares      (N,)    z
    covariance  (N, N)  of its error
    confidence  of each interval by itself, such as 0.9
    """
    spread = float(norm.ppf((1 + confidence) / 2)) * covariance.diagonal().clamp_min(0).sqrt()
    return (shares - spread).clamp(0, 1), (shares + spread).clamp(0, 1)


def count_intervals(
    shares: Tensor, covariance: Tensor, total: int, confidence: float
) -> tuple[Tensor, Tensor]:
    """The same in whole labels of `total`, rounded outwards: (N,) int64 each."""
    low, high = share_intervals(shares, covariance, confidence)
    return (low * total).floor().long(), (high * total).ceil().long()
