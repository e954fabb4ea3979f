"""Several rounds of one client → one estimate of the label shares it draws from.

Round r saw labels z_r of images that the client drew, and read them with an error of covariance
C_r, of which the part B_r comes from the auxiliary class means. These are the same in every round,
so that this part is one error seen R times, and no number of rounds makes it smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2
from torch import Tensor

from rlu_cli.numerics.simplex import mixture

_MAX_ITERATIONS = 6  # of shares and the noise of drawing them
_LEAST = 1e-3  # of a round's covariance that is taken for its own whatever the rest
_FLOOR = 1e-12  # variance of a share, against rounds without any noise


@dataclass(frozen=True)
class RoundShares:
    """What one round tells.

    shares      (N,) z_r, summing to 1; below 0 where the method can tell them so
    covariance  (N, N) C_r of its error about the labels the round used; None where nobody knows
    common      (N, N) B_r, the part of it that every round has alike; None for nothing
    drawn       images behind the shares, each counted once; None where nobody knows
    held        images the client has in all, where that is known: rounds then share images
    bounded     (N,) the same shares with z_r ≥ 0; None where `shares` are these already
    """

    shares: Tensor
    covariance: Tensor | None = None
    shared_covariance: Tensor | None = None
    drawn: float | None = None
    held: float | None = None
    bounded: Tensor | None = None

    @property
    def overlap(self) -> float:
        """Share of the client's images that the round used, so that another round has them too."""
        if self.held is None or self.drawn is None:
            return 0.0
        return min(1.0, self.drawn / self.held)

    @property
    def drawing(self) -> float:
        """Variance of a share by drawing alone is π(1 - π) times this; finite where n is known."""
        if self.drawn is None or self.overlap == 1.0:
            return 0.0
        left = 1.0 if self.held is None else (self.held - self.drawn) / (self.held - 1)
        return left / self.drawn


@dataclass(frozen=True)
class Agreement:
    """Whether the rounds can have come from the same labels.

    chi_square  Σ of squared whitened differences between the rounds' bounded shares and their mean
    degrees     of freedom
    p_value     how often rounds of the same labels differ as much
    widened     factor on the part of the covariance that is each round's own: χ² per degree of the
                shares that are averaged, or of the bounded ones where that is more; at least 1
    """

    chi_square: float
    degrees: int
    p_value: float
    variance_inflation: float


@dataclass(frozen=True)
class Pooled:
    """What the rounds say together.

    shares      (N,) π ≥ 0, summing to 1
    covariance  (N, N) of its error, without the bounds of the simplex but on the plane Σπ = 1; None
                where the rounds do not know their own
    agreement   None where they cannot be compared
    """

    shares: Tensor
    covariance: Tensor | None = None
    agreement: Agreement | None = None


def pool(rounds: Sequence[RoundShares]) -> Pooled:
    """Label shares π behind R rounds: min Σ_r (z_r - π)ᵀ T_r⁻¹ (z_r - π), π ≥ 0, Σπ = 1.

    T_r = C_r + (diag π - π πᵀ) / K_r, of a round of K_r images; π and T_r in turn. The weights
    W_r = (Σ T⁻¹)⁻¹ T_r⁻¹ take the rounds for independent, which keeps them positive; the covariance
    does not: Σ W_r (own part of T_r) W_rᵀ + (Σ W_r B_r^½)(Σ W_r B_r^½)ᵀ. Rounds that differ by more
    than their own parts allow (χ² per degree above 1) have these parts widened by as much. A model
    that is off pushes absent classes below 0 by more than its noise, which is no change of labels:
    the test for that looks at shares that were kept from it, the widening at those averaged.

    Of a client whose n images are known, K_r < n of them vary less (n - K_r) / (n - 1), and the
    share K_r / n of a round's own error is in every other round again: the images are the same.

    Where a round does not know its covariance: the mean, weighted by K_r.
    """
    known = [one for one in rounds if one.covariance is not None]
    if len(known) < len(rounds):
        return Pooled(_mean(rounds))
    plane = _plane(len(rounds[0].shares))
    points = [plane.T @ one.shares.double().cpu() for one in rounds]
    noises = [_noise(one, plane) for one in rounds]
    shares = _mean(rounds)
    for _ in range(_MAX_ITERATIONS):
        drawn = [_multinomial(shares, plane) * one.drawing for one in rounds]
        weights, precision = _weights([n.whole + d for n, d in zip(noises, drawn, strict=True)])
        mean = _weighted(weights, points)
        root = _root(precision)
        shares = mixture(root @ plane.T, root @ mean).shares
    agreement = _agreement(rounds, plane, noises, drawn)
    own = [
        (n.own * (1 - one.overlap) + d) * agreement.variance_inflation
        for one, n, d in zip(rounds, noises, drawn, strict=True)
    ]
    alike = [
        _root(n.shared_covariance + n.own * one.overlap * agreement.variance_inflation)
        for one, n in zip(rounds, noises, strict=True)
    ]
    spread = sum(w @ part @ w.T for w, part in zip(weights, own, strict=True))
    shared = torch.stack([w @ part for w, part in zip(weights, alike, strict=True)]).sum(0)
    return Pooled(shares, plane @ (spread + shared @ shared.T) @ plane.T, agreement)


@dataclass(frozen=True)
class _Noise:
    """Covariances (N - 1, N - 1) of a round on the plane: its own part, the common one, both."""

    own: Tensor
    shared_covariance: Tensor

    @property
    def whole(self) -> Tensor:
        return self.own + self.shared_covariance


def _noise(one: RoundShares, plane: Tensor) -> _Noise:
    """The parts of a round's covariance, each positive semi-definite."""
    assert one.covariance is not None
    whole = _positive(plane.T @ one.covariance.double().cpu() @ plane)
    if one.shared_covariance is None:
        shared_covariance = torch.zeros_like(whole)
    else:
        shared_covariance = _positive(plane.T @ one.shared_covariance.double().cpu() @ plane)
    least = _LEAST * whole + _FLOOR * torch.eye(len(whole), dtype=torch.float64)
    return _Noise(_positive(whole - shared_covariance) + least, shared_covariance)


def _multinomial(shares: Tensor, plane: Tensor) -> Tensor:
    """diag π - π πᵀ on the plane: the covariance of one label."""
    return plane.T @ (torch.diag(shares) - torch.outer(shares, shares)) @ plane


def _weights(noises: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """W_r = (Σ T⁻¹)⁻¹ T_r⁻¹ of every round, and Σ T⁻¹."""
    inverses = [torch.linalg.inv(noise) for noise in noises]
    precision = torch.stack(inverses).sum(0)
    precision = (precision + precision.T) / 2
    return [torch.linalg.solve(precision, inverse) for inverse in inverses], precision


def _weighted(weights: Sequence[Tensor], points: Sequence[Tensor]) -> Tensor:
    return torch.stack([w @ point for w, point in zip(weights, points, strict=True)]).sum(0)


def _agreement(
    rounds: Sequence[RoundShares],
    plane: Tensor,
    noises: Sequence[_Noise],
    drawn: Sequence[Tensor],
) -> Agreement:
    """χ² of the rounds about the mean that is best by their own parts alone.

    A common error that is larger in one round than in another tells them apart too, by the
    difference of the roots of their B_r. Classes that no round has count for nothing.
    """
    roots = [_root(noise.shared_covariance) for noise in noises]
    middle = torch.stack(roots).mean(0)
    apart = [(root - middle) @ (root - middle).T for root in roots]
    own = [n.own + a for n, a in zip(noises, apart, strict=True)]
    kept = [replace(o, shares=o.shares if o.bounded is None else o.bounded) for o in rounds]
    label = _multinomial(_mean(kept), plane)  # of the shares that are compared
    noisy = [n + label * one.drawing for n, one in zip(own, rounds, strict=True)]
    total, degrees = _scatter(kept, noisy, plane)
    if degrees < 1:
        return Agreement(total, 0, 1.0, 1.0)
    free, freedom = _scatter(rounds, [n + d for n, d in zip(own, drawn, strict=True)], plane)
    variance_inflation = max(1.0, total / degrees, free / max(freedom, 1))
    return Agreement(total, degrees, float(chi2.sf(total, degrees)), variance_inflation)


def _scatter(
    rounds: Sequence[RoundShares], noises: Sequence[Tensor], plane: Tensor
) -> tuple[float, int]:
    """χ² of the rounds' shares about their mean, and its degrees of freedom."""
    points = [plane.T @ one.shares.double().cpu() for one in rounds]
    weights, _ = _weights(noises)
    misses = [point - _weighted(weights, points) for point in points]
    total = sum(float(m @ torch.linalg.solve(n, m)) for m, n in zip(misses, noises, strict=True))
    seen = int(torch.stack([one.shares for one in rounds]).ne(0).any(0).sum())
    return total, (len(rounds) - 1) * (seen - 1)


def _mean(rounds: Sequence[RoundShares]) -> Tensor:
    """The plain mean by K_r; by rounds where a K_r is not known."""
    sizes = [one.drawn for one in rounds]
    told = [size for size in sizes if size is not None]
    counted = told if len(told) == len(sizes) else [1.0] * len(sizes)
    weights = torch.tensor(counted, dtype=torch.float64)
    mean = weights @ torch.stack([one.shares.double().cpu() for one in rounds])
    positive = mean.clamp_min(0)
    return positive / positive.sum()


def _plane(classes: int) -> Tensor:
    """(N, N - 1) orthonormal columns that span Σ = 0."""
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    basis: Tensor = torch.linalg.qr(centred[:, 1:])[0]
    return basis


def _positive(matrix: Tensor) -> Tensor:
    """The nearest positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    nearest: Tensor = (vectors * values.clamp_min(0)) @ vectors.T
    return nearest


def _root(matrix: Tensor) -> Tensor:
    """The symmetric square root."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
