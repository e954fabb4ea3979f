"""What an answer with a known error does not tell: which of two classes it was, or anything at all.

The error of the shares z is normal with covariance Σ (N, N), on the plane Σ_n δ_n = 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import truncnorm
from torch import Tensor

_SURE = 2.0  # standard deviations
_EVEN = 3**0.5  # a split of s of which nothing is known is even on -s…s: s/√3 is its deviation
_EXACT = 1e-12  # variances below are none


def unidentifiable_groups(shares: Tensor, covariance: Tensor) -> tuple[tuple[int, ...], ...]:
    """Groups of classes that are told together and not apart, each in order, ascending.

    shares      (N,)    z
    covariance  (N, N)  Σ of its error

    Two classes i, j are *alike* where moving labels from one to the other is not noticed: with all
    other shares known, z_i - z_j has the deviation σ_d = 2 / √(dᵀ Σ⁻¹ d), d = e_i - e_j, and

        σ_d ≥ (s + 2 σ_s) / √3,    s = z_i + z_j, σ_s its deviation, s + 2 σ_s ≤ 1.

    The right side is the deviation of a split of which nothing is known, even for the largest sum
    that there may be to split. Independent errors have σ_d ≤ σ_s and are never alike, however large
    they are. Classes alike are joined to groups; dᵀ Σ⁻¹ d is the squared distance of the classes'
    columns, so that three equal ones are found as well as two. A group is told where its sum is
    known to be more than nothing (two deviations), and is not all the classes there are: that is
    `uninformed`. A class that looks like a mixture of several others is none of this.
    """
    classes = len(shares)
    if not bool(torch.isfinite(covariance).all()):
        return ()
    spread, distance = _pair_variances(covariance)
    together = shares[:, None] + shares[None, :]
    most = (together + _SURE * spread.sqrt()).clamp(max=1)
    alike = most * distance.sqrt() <= 2 * _EVEN  # σ_d ≥ most / √3 without dividing by 0
    found = [group for group in _joined(alike.fill_diagonal_(False)) if 1 < len(group) < classes]
    return tuple(group for group in found if _sum_is_told(shares, covariance, list(group)))


def uninformative(answer: Tensor, shares: Tensor, covariance: Tensor) -> bool:
    """Whether the answer is no better than an even guess, in labels that are right (Eq. 92).

    answer      (N,)    x ≥ 0, as reported
    shares      (N,)    z as the evidence alone has it, which may be below 0
    covariance  (N, N)  Σ of its error

    An answer x gets 1 - ½ Σ E|t_n - x_n| of the labels right. Over t ~ N(z, Σ) alone z would win
    always: |t - x| is least about the mean of a normal, however wide. But t is made of shares.
    Where nothing is known of a client all shares are alike, and each by itself is close to
    exponential with mean 1/N; the error then makes t_n a normal of mean z_n - N σ_n² and deviation
    σ_n, cut off below 0. As σ_n grows it becomes the exponential again.

    Uninformed means two things at once. x gets no more labels right than 1/N does. And x gets no
    more right than 1/N does of clients of whom nothing is known, 1 - (1 - 1/N)^N of them: shares
    *known* to be even, or nearly, are an answer, and the even guess is then right and no floor.
    """
    deviations = covariance.diagonal().clamp_min(_EXACT).sqrt()
    if not bool(torch.isfinite(deviations).all()):
        return True
    classes = len(shares)
    even = torch.full_like(shares, 1 / classes)
    lost = expected_loss(answer, shares, deviations)
    return lost >= max((1 - 1 / classes) ** classes, expected_loss(even, shares, deviations))


def expected_loss(answer: Tensor, shares: Tensor, deviations: Tensor) -> float:
    """½ Σ_n E|t_n - x_n|, the share of labels that an answer x gets wrong.

    answer      (N,)  x ≥ 0
    shares      (N,)  z as found
    deviations  (N,)  σ of its error, above 0; t_n as in `uninformed`. Beyond 1 it is taken as 1
                      and z as z/σ²: nearly the same law of shares, which are from 0 to 1
    """
    found, wide = shares.double().cpu().numpy(), deviations.double().cpu().numpy()
    sigma = wide.clip(max=1)
    mean = found * (sigma / wide) ** 2 - len(shares) * sigma**2
    target = answer.double().cpu().numpy()
    over = _excess(target, mean, sigma)
    # E|t - x| = 2 E(t - x)⁺ - E t + x, and t ≥ 0: E t = E(t - 0)⁺.
    losses = 2 * over - _excess(np.zeros_like(mean), mean, sigma) + target
    return float(losses.clip(0).sum() / 2)


def _excess(
    bound: NDArray[np.float64], mean: NDArray[np.float64], sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """E(t - x)⁺ of normals (mean, sigma) cut off below 0, x ≥ 0: σ² f(x) + (mean - x) P(t > x)."""
    law = truncnorm(-mean / sigma, np.inf, loc=mean, scale=sigma)
    found: NDArray[np.float64] = sigma**2 * law.pdf(bound) + (mean - bound) * law.sf(bound)
    return found


def _pair_variances(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Of every pair of classes (N, N): variance of z_i + z_j, and dᵀ Σ⁻¹ d with d = e_i - e_j."""
    own = covariance.diagonal()
    spread = (own[:, None] + own[None, :] + 2 * covariance).clamp_min(0)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    turned = vectors / values.clamp_min(_EXACT).sqrt()  # what is known exactly keeps a pair apart
    return spread, torch.cdist(turned, turned).square()


def _joined(alike: Tensor) -> list[tuple[int, ...]]:
    """Classes that are linked, directly or through others: (N, N) bool → groups."""
    waiting, groups = set(range(len(alike))), []
    while waiting:
        group, edge = set(), {min(waiting)}
        while edge:
            group |= edge
            edge = set(torch.nonzero(alike[sorted(edge)].any(0))[:, 0].tolist()) - group
        waiting -= group
        groups.append(tuple(sorted(group)))
    return groups


def _sum_is_told(shares: Tensor, covariance: Tensor, group: list[int]) -> bool:
    """Whether a group's sum lies above zero by more than its error."""
    variance = float(covariance[group][:, group].sum().clamp_min(0))
    return float(shares[group].sum()) > _SURE * math.sqrt(variance)
