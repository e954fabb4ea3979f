"""Intervals of label counts from the covariance of their shares."""

from __future__ import annotations

from scipy.stats import norm
from torch import Tensor


def share_intervals(shares: Tensor, covariance: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Bounds of every share, z ± q σ clipped to 0…1, (N,) each, with q the normal quantile.

    shares      (N,)    z
    covariance  (N, N)  of its error
    confidence  pointwise coverage of each interval, such as 0.9
    """
    half_width = float(norm.ppf((1 + confidence) / 2)) * covariance.diagonal().clamp_min(0).sqrt()
    return (shares - half_width).clamp(0, 1), (shares + half_width).clamp(0, 1)


def count_intervals(
    shares: Tensor, covariance: Tensor, total: int, confidence: float
) -> tuple[Tensor, Tensor]:
    """`share_intervals` in labels of `total`, rounded outwards, (N,) int64 each."""
    low, high = share_intervals(shares, covariance, confidence)
    return (low * total).floor().long(), (high * total).ceil().long()
