"""Joint estimate of one client's label shares from several rounds.

Round r estimates the shares z_r of the labels it used, with an error of covariance C_r. Its part
B_r comes from the auxiliary class means. They are the same in every round, so this error is shared
by all R rounds and does not average out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import chi2
from torch import Tensor

from rlu_cli.numerics.simplex import mixture

_MAX_ITERATIONS = 6  # of shares and sampling covariance in turn
_LEAST = 1e-3  # least part of a round's covariance that is independent of the other rounds
_FLOOR = 1e-12  # least variance of a share: rounds may be free of noise


@dataclass(frozen=True)
class RoundShares:
    """Estimate from one round.

    shares             (N,) z_r, summing to 1; without z_r ≥ 0 if the method provides that
    covariance         (N, N) C_r of the error of z_r about the labels used; None if unknown
    shared_covariance  (N, N) B_r, the part of C_r that all rounds share; None for none
    drawn              K_r, distinct images used in the round; None if unknown
    held               n, images the client has in total; None if unknown. With it, rounds overlap
    bounded            (N,) z_r with z_r ≥ 0; None if `shares` satisfies that
    """

    shares: Tensor
    covariance: Tensor | None = None
    shared_covariance: Tensor | None = None
    drawn: float | None = None
    held: float | None = None
    bounded: Tensor | None = None

    @property
    def overlap(self) -> float:
        """Share K_r / n of the client's images that the round used; 0 if n or K_r is unknown."""
        if self.held is None or self.drawn is None:
            return 0.0
        return min(1.0, self.drawn / self.held)

    @property
    def drawing(self) -> float:
        """Sampling variance of a share over π(1 - π), with the finite-population correction."""
        if self.drawn is None or self.overlap == 1.0:
            return 0.0
        left = 1.0 if self.held is None else (self.held - self.drawn) / (self.held - 1)
        return left / self.drawn


@dataclass(frozen=True)
class Agreement:
    """Test of homogeneity: whether all rounds have the same label distribution.

    chi_square          Σ of squared whitened differences of the bounded shares from their mean
    degrees             degrees of freedom
    p_value             probability of a χ² at least as large under one label distribution
    variance_inflation  factor on the independent part of every round's covariance: the larger
                        reduced χ² of the averaged and of the bounded shares, at least 1
    """

    chi_square: float
    degrees: int
    p_value: float
    variance_inflation: float


@dataclass(frozen=True)
class Pooled:
    """Joint estimate.

    shares      (N,) π ≥ 0, summing to 1
    covariance  (N, N) of the error of π without π ≥ 0, on the plane Σπ = 1; None if the covariance
                of any round is unknown
    agreement   test of homogeneity; None without covariances
    """

    shares: Tensor
    covariance: Tensor | None = None
    agreement: Agreement | None = None


def pool(rounds: Sequence[RoundShares]) -> Pooled:
    """Label shares π behind R rounds: min Σ_r (z_r - π)ᵀ T_r⁻¹ (z_r - π), π ≥ 0, Σπ = 1.

    rounds   R estimates of the same client, R ≥ 1
    returns  π, the covariance of its error and the test of homogeneity

    T_r = C_r + (diag π - π πᵀ) / K_r, where K_r is the number of images; π and T_r are updated in
    turn. The weights W_r = (Σ T⁻¹)⁻¹ T_r⁻¹ treat the rounds as independent, which keeps them
    positive. The covariance does not: Σ W_r (independent part of T_r) W_rᵀ + M Mᵀ with
    M = Σ W_r B_r^½. If the rounds differ by more than their independent parts allow (reduced χ²
    above 1), these are inflated by it (squared Birge ratio). A biased model pushes absent classes
    below 0 by more than the noise, although the labels have not changed: the test therefore uses
    the bounded shares, the inflation also the averaged ones.

    If the client's number of images n is known, the sampling variance is multiplied by
    (n - K_r) / (n - 1), and the share K_r / n of a round's independent error is shared with the
    other rounds, since they use the same images.

    If the covariance of any round is unknown, π is the mean weighted by K_r.
    """
    known = [one for one in rounds if one.covariance is not None]
    if len(known) < len(rounds):
        return Pooled(_mean(rounds))
    plane = _plane(len(rounds[0].shares))
    points = [plane.T @ one.shares.double().cpu() for one in rounds]
    noises = [_noise(one, plane) for one in rounds]
    shares = _mean(rounds)
    for _ in range(_MAX_ITERATIONS):
        sampling = [_multinomial(shares, plane) * one.drawing for one in rounds]
        weights, precision = _weights([n.whole + d for n, d in zip(noises, sampling, strict=True)])
        mean = _weighted(weights, points)
        root = _root(precision)
        shares = mixture(root @ plane.T, root @ mean).shares
    agreement = _agreement(rounds, plane, noises, sampling)
    own = [
        (n.own * (1 - one.overlap) + d) * agreement.variance_inflation
        for one, n, d in zip(rounds, noises, sampling, strict=True)
    ]
    shared_roots = [
        _root(n.shared_covariance + n.own * one.overlap * agreement.variance_inflation)
        for one, n in zip(rounds, noises, strict=True)
    ]
    spread = sum(w @ part @ w.T for w, part in zip(weights, own, strict=True))
    shared = torch.stack([w @ part for w, part in zip(weights, shared_roots, strict=True)]).sum(0)
    return Pooled(shares, plane @ (spread + shared @ shared.T) @ plane.T, agreement)


@dataclass(frozen=True)
class _Noise:
    """Covariance (N - 1, N - 1) of a round on the plane Σ = 0: independent part and shared part."""

    own: Tensor
    shared_covariance: Tensor

    @property
    def whole(self) -> Tensor:
        return self.own + self.shared_covariance


def _noise(one: RoundShares, plane: Tensor) -> _Noise:
    """Both parts of a round's covariance, each positive semi-definite."""
    assert one.covariance is not None
    whole = _positive(plane.T @ one.covariance.double().cpu() @ plane)
    if one.shared_covariance is None:
        shared_covariance = torch.zeros_like(whole)
    else:
        shared_covariance = _positive(plane.T @ one.shared_covariance.double().cpu() @ plane)
    least = _LEAST * whole + _FLOOR * torch.eye(len(whole), dtype=torch.float64)
    return _Noise(_positive(whole - shared_covariance) + least, shared_covariance)


def _multinomial(shares: Tensor, plane: Tensor) -> Tensor:
    """diag π - π πᵀ on the plane: the covariance of a single label draw."""
    return plane.T @ (torch.diag(shares) - torch.outer(shares, shares)) @ plane


def _weights(noises: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """W_r = (Σ T⁻¹)⁻¹ T_r⁻¹ of every round, and the total precision Σ T⁻¹."""
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
    """χ² of the rounds about their mean weighted by the independent parts.

    If B_r differs between rounds, the difference of its roots is added to the independent part.
    Classes absent from every round add no degrees of freedom.
    """
    roots = [_root(noise.shared_covariance) for noise in noises]
    mean_root = torch.stack(roots).mean(0)
    root_differences = [(root - mean_root) @ (root - mean_root).T for root in roots]
    independent = [n.own + a for n, a in zip(noises, root_differences, strict=True)]
    bounded_rounds = [
        replace(o, shares=o.shares if o.bounded is None else o.bounded) for o in rounds
    ]
    label_covariance = _multinomial(_mean(bounded_rounds), plane)  # at the bounded shares
    with_sampling = [
        n + label_covariance * one.drawing for n, one in zip(independent, rounds, strict=True)
    ]
    total, degrees = _scatter(bounded_rounds, with_sampling, plane)
    if degrees < 1:
        return Agreement(total, 0, 1.0, 1.0)
    unconstrained, unconstrained_degrees = _scatter(
        rounds, [n + d for n, d in zip(independent, drawn, strict=True)], plane
    )
    variance_inflation = max(1.0, total / degrees, unconstrained / max(unconstrained_degrees, 1))
    return Agreement(total, degrees, float(chi2.sf(total, degrees)), variance_inflation)


def _scatter(
    rounds: Sequence[RoundShares], noises: Sequence[Tensor], plane: Tensor
) -> tuple[float, int]:
    """χ² of the rounds' shares about their mean, and its degrees of freedom."""
    points = [plane.T @ one.shares.double().cpu() for one in rounds]
    weights, _ = _weights(noises)
    residuals = [point - _weighted(weights, points) for point in points]
    total = sum(float(m @ torch.linalg.solve(n, m)) for m, n in zip(residuals, noises, strict=True))
    present = int(torch.stack([one.shares for one in rounds]).ne(0).any(0).sum())
    return total, (len(rounds) - 1) * (present - 1)


def _mean(rounds: Sequence[RoundShares]) -> Tensor:
    """Mean weighted by K_r, or unweighted if any K_r is unknown; negatives to 0, normalised."""
    sizes = [one.drawn for one in rounds]
    known = [size for size in sizes if size is not None]
    counts = known if len(known) == len(sizes) else [1.0] * len(sizes)
    weights = torch.tensor(counts, dtype=torch.float64)
    mean = weights @ torch.stack([one.shares.double().cpu() for one in rounds])
    positive = mean.clamp_min(0)
    return positive / positive.sum()


def _plane(classes: int) -> Tensor:
    """(N, N - 1) orthonormal columns spanning Σ = 0."""
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
