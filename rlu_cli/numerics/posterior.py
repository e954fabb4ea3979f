"""Label shares to expect, from a normal estimate that does not know that shares are no less than 0.

A least-squares answer on the simplex is the most likely point. Where the error is large it puts
small classes to 0 and gives their labels to others. The mean over all shares that the estimate
allows loses fewer labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import gammaln
from torch import Tensor

# Dirichlet concentrations α, and how likely each is before anything was seen: log-normal about
# Jeffreys' ½. A client of many classes tells its own.
_CONCENTRATIONS = (0.1, 0.2, 0.5, 1.0, 2.0)
_USUAL, _SPREAD = 0.5, 0.5
_MAX_ITERATIONS = 100
_DAMPING = 0.5
_SETTLED = 1e-4  # relative change of the sites' precisions
_REACH = 8.0  # deviations on either side that are integrated over
_GAUSS = np.polynomial.legendre.leggauss(80)
_NODES, _WEIGHTS = (_GAUSS[0] + 1) / 2, _GAUSS[1] / 2  # on 0…1
_LEAST = 1e-14  # variance, against a cavity of none; share, against the logarithm of 0
_LOOSE = 1e-12  # precision
_FLAT = 1e-10  # precision of a site, which stays above 0

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Sites:
    """Gaussian stand-ins exp(-τ z²/2 + ν z) for z^(α-1) on z ≥ 0, one a class, (N,) each."""

    precision: _Array
    shift: _Array


@dataclass(frozen=True)
class _Propagated:
    """Mean (N,) of the shares under one concentration, and the logarithm of its evidence."""

    mean: _Array
    evidence: float


def posterior_mean(centre: Tensor, covariance: Tensor) -> Tensor | None:
    """E[z] under z ~ N(centre, covariance) and a Dirichlet prior on the simplex z ≥ 0, Σz = 1.

    The prior's concentration α is not known: the means under several are averaged by their evidence
    ∫ N(z; centre, covariance) Dir(z; α) dz and by how usual they are. Each is found by expectation
    propagation (Minka 2001; for the bounds Cunningham, Hennig and Lacoste-Julien 2011): the plane
    Σz = 1 is in the covariance, and every class's z_n^(α-1) [z_n ≥ 0] is matched by a Gaussian in
    the mean and the variance that it gives the class's marginal.

    centre      (N,)    summing to 1, any sign
    covariance  (N, N)  of its error, which is 0 along the ones
    returns     (N,) float64, ≥ 0, summing to 1; None where the propagation came to nothing.
                Where the error is as large as the shares themselves it is good to about 0.005
    """
    mean = centre.double().cpu().numpy()
    spread = covariance.double().cpu().numpy()
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        return None
    try:
        found = [_propagate(mean, spread, alpha) for alpha in _CONCENTRATIONS]
    except np.linalg.LinAlgError:
        return None
    usual = -((np.log(_CONCENTRATIONS) - np.log(_USUAL)) ** 2) / (2 * _SPREAD**2)
    logs = usual + [one.evidence for one in found]
    weights = np.exp(logs - logs.max())
    positive = np.maximum(weights @ np.stack([one.mean for one in found]), 0)
    if not np.isfinite(positive).all() or not positive.sum() > 0:
        return None
    return torch.from_numpy(positive / positive.sum())


def _propagate(centre: _Array, covariance: _Array, concentration: float) -> _Propagated:
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
        if change < _SETTLED:
            break
    mean, _, log_gaussians = _marginals(centre, covariance, sites)
    whole = precision + sites.precision
    log_site = ((cavity * precision + sites.shift) ** 2 / whole - cavity**2 * precision) / 2
    log_site -= np.log(whole / precision) / 2
    normaliser = float(gammaln(classes * concentration) - classes * gammaln(concentration))
    return _Propagated(mean, float((log_mass - log_site).sum()) + log_gaussians + normaliser)


def _marginals(centre: _Array, covariance: _Array, sites: _Sites) -> tuple[_Array, _Array, float]:
    """Mean and variance (N,) of N(centre, covariance) times the sites, and the log of its mass."""
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
    """Log of the mass, mean and variance (N,) of N(mean, deviation²) × z^(α-1) on 0 ≤ z.

    By Gauss-Legendre quadrature: in z where 0 is out of reach, else in z^α, which takes the pole
    at 0 away. A mean far below 0 leaves an exponential tail, whose length sets the reach.
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
