"""Posterior mean of the label shares, given an unconstrained normal estimate.

Least squares on the simplex gives the most likely shares. With a large error it sets small classes
to 0 and assigns their labels to others. The posterior mean has a smaller expected error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import gammaln
from torch import Tensor

# Dirichlet concentrations α and their log-normal prior about Jeffreys' ½. With many classes the
# evidence determines α.
_CONCENTRATIONS = (0.1, 0.2, 0.5, 1.0, 2.0)
_PRIOR_MEDIAN, _PRIOR_STD = 0.5, 0.5
_MAX_ITERATIONS = 100
_DAMPING = 0.5
_TOLERANCE = 1e-4  # relative change of the sites' precisions
_REACH = 8.0  # standard deviations of the integration range on either side
_GAUSS = np.polynomial.legendre.leggauss(80)
_NODES, _WEIGHTS = (_GAUSS[0] + 1) / 2, _GAUSS[1] / 2  # on 0…1
_LEAST = 1e-14  # least variance; least share under a logarithm
_LOOSE = 1e-12  # least precision of a cavity
_FLAT = 1e-10  # least precision of a site

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Sites:
    """Gaussian sites exp(-τ z²/2 + ν z) in place of z^(α-1) on z ≥ 0, one per class, (N,) each."""

    precision: _Array
    shift: _Array


@dataclass(frozen=True)
class _Propagated:
    """Posterior mean (N,) under one concentration, and its log evidence."""

    mean: _Array
    evidence: float


def posterior_mean(centre: Tensor, covariance: Tensor) -> Tensor | None:
    """E[z] under N(z; centre, covariance) × Dirichlet(z; α) on the simplex z ≥ 0, Σz = 1.

    centre      (N,)    unconstrained shares of any sign, summing to 1
    covariance  (N, N)  of their error, singular along (1, …, 1)
    returns     (N,) float64, ≥ 0, summing to 1; None if the computation fails. Accurate to about
                0.005 if the error is as large as the shares

    α is unknown: the means for several α are averaged, weighted by their evidence
    ∫ N(z; centre, covariance) Dir(z; α) dz and their prior. Each mean is computed by expectation
    propagation (Minka 2001; with bounds: Cunningham, Hennig and Lacoste-Julien 2011). The
    covariance contains the plane Σz = 1. Every factor z_n^(α-1) [z_n ≥ 0] is replaced by the
    Gaussian that gives the class's marginal the same mean and variance.
    """
    mean = centre.double().cpu().numpy()
    spread = covariance.double().cpu().numpy()
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        return None
    try:
        found = [_propagate(mean, spread, alpha) for alpha in _CONCENTRATIONS]
    except np.linalg.LinAlgError:
        return None
    log_prior = -((np.log(_CONCENTRATIONS) - np.log(_PRIOR_MEDIAN)) ** 2) / (2 * _PRIOR_STD**2)
    logs = log_prior + [one.evidence for one in found]
    weights = np.exp(logs - logs.max())
    positive = np.maximum(weights @ np.stack([one.mean for one in found]), 0)
    if not np.isfinite(positive).all() or not positive.sum() > 0:
        return None
    return torch.from_numpy(positive / positive.sum())


def _propagate(centre: _Array, covariance: _Array, concentration: float) -> _Propagated:
    """Expectation propagation under one concentration, with damped updates."""
    classes = len(centre)
    sites = _Sites(np.zeros(classes), np.zeros(classes))
    for _ in range(_MAX_ITERATIONS):
        mean, variance, _ = _marginals(centre, covariance, sites)
        precision = np.maximum(1 / variance - sites.precision, _LOOSE)
        cavity = (mean / variance - sites.shift) / precision
        log_mass, matched, width = _moments(cavity, precision**-0.5, concentration)
        wanted = np.maximum(1 / np.maximum(width, _LEAST) - precision, _FLAT)
        change = np.abs(wanted - sites.precision).max() / wanted.max()
        shift = matched * (wanted + precision) - cavity * precision
        sites = _Sites(
            sites.precision + _DAMPING * (wanted - sites.precision),
            sites.shift + _DAMPING * (shift - sites.shift),
        )
        if change < _TOLERANCE:
            break
    mean, _, log_gaussians = _marginals(centre, covariance, sites)
    whole = precision + sites.precision
    log_site = ((cavity * precision + sites.shift) ** 2 / whole - cavity**2 * precision) / 2
    log_site -= np.log(whole / precision) / 2
    normaliser = float(gammaln(classes * concentration) - classes * gammaln(concentration))
    return _Propagated(mean, float((log_mass - log_site).sum()) + log_gaussians + normaliser)


def _marginals(centre: _Array, covariance: _Array, sites: _Sites) -> tuple[_Array, _Array, float]:
    """Mean and variance (N,) of N(centre, covariance) times the sites, and the log of the mass."""
    root = np.sqrt(sites.precision)
    factor = np.linalg.cholesky(np.eye(len(centre)) + root[:, None] * covariance * root)
    half = solve_triangular(factor, root[:, None] * covariance, lower=True, check_finite=False)
    left = covariance - half.T @ half
    pull = sites.shift - sites.precision * centre
    moved = left @ pull
    mass = centre @ (sites.shift + pull) / 2 + pull @ moved / 2 - np.log(np.diag(factor)).sum()
    return centre + moved, np.maximum(np.diag(left), _LEAST), float(mass)


def _moments(
    mean: _Array, deviation: _Array, concentration: float
) -> tuple[_Array, _Array, _Array]:
    """Log of the mass, mean and variance (N,) of N(mean, deviation²) × z^(α-1) on z ≥ 0.

    By Gauss-Legendre quadrature: in z if 0 is outside the integration range, else in z^α, which
    removes the pole at 0. A mean far below 0 leaves an exponential tail, whose length sets the
    range.
    """
    below = np.maximum(-mean / deviation, 0)
    upper = np.maximum(mean + _REACH * deviation, _REACH * deviation / (1 + below))
    lower = np.maximum(mean - _REACH * deviation, 0)
    near = (lower == 0)[:, None]
    wide = np.where(near, upper[:, None], (upper - lower)[:, None])
    places = lower[:, None] + wide * np.where(near, _NODES ** (1 / concentration), _NODES)
    pole = (concentration - 1) * np.log(np.maximum(places, _LEAST))
    scale = np.where(
        near, concentration * np.log(wide) - np.log(concentration), np.log(wide) + pole
    )
    bell = ((places - mean[:, None]) / deviation[:, None]) ** 2 / 2 + np.log(deviation)[:, None]
    logs = scale - bell - np.log(2 * np.pi) / 2
    most = logs.max(1, keepdims=True)
    weights = _WEIGHTS * np.exp(logs - most)
    mass = weights.sum(1)
    weights /= mass[:, None]
    matched = (weights * places).sum(1)
    variance = (weights * (places - matched[:, None]) ** 2).sum(1)
    return np.log(mass) + most[:, 0], matched, variance
