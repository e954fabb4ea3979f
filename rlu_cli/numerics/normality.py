"""Deviation of a sample from normality: its moments and its distance to the fitted normal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TINIEST = 1e-12  # least standard deviation: equal values must not divide by 0


@dataclass(frozen=True)
class Normality:
    """Fitted normal of a sample and the sample's deviation from it.

    mean, sd  of the sample, in its own unit; sd is the maximum-likelihood estimate
    skewness  third standardised moment, 0 for a normal
    kurtosis  excess kurtosis: fourth standardised moment minus 3
    distance  Kolmogorov-Smirnov: largest difference of the two distribution functions, 0…1
    """

    mean: float
    sd: float
    skewness: float
    kurtosis: float
    distance: float


def describe_normality(values: Tensor) -> Normality:
    """Maximum-likelihood normal of a sample and the sample's deviation from it (Assumption 3.1).

    values  (n,), n ≥ 1
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
    """max |F_n - Φ|, with both edges of every step of F_n compared."""
    expected = torch.special.ndtr(scaled.sort().values)
    steps = torch.arange(len(scaled) + 1, dtype=torch.float64) / len(scaled)
    return float(torch.maximum(steps[1:] - expected, expected - steps[:-1]).max())
