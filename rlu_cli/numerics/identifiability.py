"""Which classes an estimate cannot separate, and whether it is informative at all.

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
_UNIFORM = 3**0.5  # uniform on -s…s has standard deviation s/√3
_EXACT = 1e-12  # variances below this count as 0


def unidentifiable_groups(shares: Tensor, covariance: Tensor) -> tuple[tuple[int, ...], ...]:
    """Groups of classes for which only the sum is identifiable; empty if Σ is not finite.

    shares      (N,)    z
    covariance  (N, N)  Σ of its error
    returns     groups and the classes in each in ascending order

    Classes i, j are *indistinguishable* if labels moved between them go unnoticed: given all other
    shares, z_i - z_j has standard deviation σ_d = 2 / √(dᵀ Σ⁻¹ d), d = e_i - e_j, and

        σ_d ≥ (s + 2 σ_s) / √3,    s = z_i + z_j, σ_s its standard deviation, s + 2 σ_s ≤ 1.

    The right side is the standard deviation of a uniform split of the largest plausible sum.
    Independent errors have σ_d ≤ σ_s and never satisfy this, however large they are.

    Groups are the connected components of indistinguishable pairs. dᵀ Σ⁻¹ d is the squared distance
    between the columns of the two classes, so that three equal columns are found as well as two. A
    group is reported if its sum is positive by two standard deviations and it does not contain all
    classes (`uninformative` covers that case). A class that resembles a mixture of several others
    is not detected.
    """
    classes = len(shares)
    if not bool(torch.isfinite(covariance).all()):
        return ()
    sum_variance, distance = _pair_variances(covariance)
    sums = shares[:, None] + shares[None, :]
    largest = (sums + _SURE * sum_variance.sqrt()).clamp(max=1)
    # σ_d ≥ largest / √3 without dividing by 0.
    indistinguishable = largest * distance.sqrt() <= 2 * _UNIFORM
    components = _connected_components(indistinguishable.fill_diagonal_(False))
    groups = [group for group in components if 1 < len(group) < classes]
    return tuple(group for group in groups if _has_positive_sum(shares, covariance, list(group)))


def uninformative(answer: Tensor, shares: Tensor, covariance: Tensor) -> bool:
    """Whether the expected iAcc of an answer is no better than that of a uniform guess (Eq. 92).

    answer      (N,)    x ≥ 0, as reported
    shares      (N,)    z estimated without z ≥ 0; entries may be negative
    covariance  (N, N)  Σ of its error

    The expected iAcc of x is 1 - ½ Σ E|t_n - x_n|. Under t ~ N(z, Σ) alone x = z would always win:
    E|t - x| is smallest at the mean of a normal, however large its variance. But t are shares.
    Without any evidence the shares are exchangeable, each approximately exponential with mean 1/N.
    With that prior t_n is normal with mean z_n - N σ_n² and standard deviation σ_n, truncated below
    0; as σ_n grows it tends to the exponential again.

    An answer is uninformative if both hold: its expected iAcc is at most that of the uniform guess
    1/N, and at most 1 - (1 - 1/N)^N, that of 1/N for clients without any evidence. The second
    condition keeps shares that are *known* to be nearly uniform: there 1/N is an answer, no floor.
    """
    deviations = covariance.diagonal().clamp_min(_EXACT).sqrt()
    if not bool(torch.isfinite(deviations).all()):
        return True
    classes = len(shares)
    uniform = torch.full_like(shares, 1 / classes)
    loss = expected_loss(answer, shares, deviations)
    return loss >= max((1 - 1 / classes) ** classes, expected_loss(uniform, shares, deviations))


def expected_loss(answer: Tensor, shares: Tensor, deviations: Tensor) -> float:
    """Expected share of wrong labels of an answer x, ½ Σ_n E|t_n - x_n|.

    answer      (N,)  x ≥ 0
    shares      (N,)  z as estimated
    deviations  (N,)  σ > 0 of its error; t_n as in `uninformative`. σ > 1 is replaced by 1 and z by
                      z/σ², which hardly changes the distribution on 0…1
    """
    z, std = shares.double().cpu().numpy(), deviations.double().cpu().numpy()
    sigma = std.clip(max=1)
    mean = z * (sigma / std) ** 2 - len(shares) * sigma**2
    target = answer.double().cpu().numpy()
    over = _excess(target, mean, sigma)
    # E|t - x| = 2 E(t - x)⁺ - E t + x, and t ≥ 0: E t = E(t - 0)⁺.
    losses = 2 * over - _excess(np.zeros_like(mean), mean, sigma) + target
    return float(losses.clip(0).sum() / 2)


def _excess(
    bound: NDArray[np.float64], mean: NDArray[np.float64], sigma: NDArray[np.float64]
) -> NDArray[np.float64]:
    """E(t - x)⁺ for normals truncated below 0, x ≥ 0: σ² f(x) + (mean - x) P(t > x)."""
    law = truncnorm(-mean / sigma, np.inf, loc=mean, scale=sigma)
    found: NDArray[np.float64] = sigma**2 * law.pdf(bound) + (mean - bound) * law.sf(bound)
    return found


def _pair_variances(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """For every pair of classes (N, N): variance of z_i + z_j, and dᵀ Σ⁻¹ d with d = e_i - e_j."""
    own = covariance.diagonal()
    sum_variance = (own[:, None] + own[None, :] + 2 * covariance).clamp_min(0)
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    # An exactly known direction (eigenvalue near 0) separates a pair.
    whitened = vectors / values.clamp_min(_EXACT).sqrt()
    return sum_variance, torch.cdist(whitened, whitened).square()


def _connected_components(related: Tensor) -> list[tuple[int, ...]]:
    """Connected components of a symmetric relation between classes, (N, N) bool."""
    unvisited, groups = set(range(len(related))), []
    while unvisited:
        group, frontier = set(), {min(unvisited)}
        while frontier:
            group |= frontier
            frontier = set(torch.nonzero(related[sorted(frontier)].any(0))[:, 0].tolist()) - group
        unvisited -= group
        groups.append(tuple(sorted(group)))
    return groups


def _has_positive_sum(shares: Tensor, covariance: Tensor, group: list[int]) -> bool:
    """Whether the sum of a group is positive by more than `_SURE` standard deviations."""
    variance = float(covariance[group][:, group].sum().clamp_min(0))
    return float(shares[group].sum()) > _SURE * math.sqrt(variance)
