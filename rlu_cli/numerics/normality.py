"""How far a sample is from normal: its moments and its distance to the normal fitted to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TINIEST = 1e-12  # a spread below this is taken for it, so that equal values divide by no zero


@dataclass(frozen=True)
class Normality:
    """A sample's fitted normal and how far the sample is from it.

    mean, sd  of the sample, in its own unit; sd is the maximum-likelihood one
    skewness  third standardised moment, 0 for a normal
    kurtosis  excess over a normal's: the fourth standardised moment less 3
    distance  Kolmogorov-Smirnov: the largest gap between the two distribution functions, 0…1
    """

    mean: float
    sd: float
    skewness: float
    kurtosis: float
    distance: float


def describe_normality(values: Tensor) -> Normality:
    """The normal that fits a sample best, and what of the sample it misses (Assumption 3.1).

    values  (n,), at least one
    """
    sample = values.double().cpu()
    mean, sd = sample.mean(), sample.std(unbiased=False).clamp_min(_TINIEST)
    scaled = (sample - mean) / sd
    return Normality(
        mean=float(mean),
        sd=float(sd),
        skewness=float((scaled**3).mean()),
        kurtosis=float((scaled**4).mean()) - 3,
        distance=_distance(scaled),
    )


def _distance(scaled: Tensor) -> float:
    """max |F_n - Φ|: the empirical steps are compared at both of their edges."""
    expected = torch.special.ndtr(scaled.sort().values)
    steps = torch.arange(len(scaled) + 1, dtype=torch.float64) / len(scaled)
    return float(torch.maximum(steps[1:] - expected, expected - steps[:-1]).max())
