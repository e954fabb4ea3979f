"""Posterior distribution of the label shares, given an unconstrained normal estimate.

Least squares on the simplex gives the most likely shares. With a large error it sets small classes
to 0 and assigns their labels to others. The posterior knows that counts are whole, at least 0, and
sum to K; from it follow the best point, the intervals and the accuracy to expect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.special import gammaln, ndtr, ndtri
from scipy.stats import chi2
from torch import Tensor

# Dirichlet concentrations α: an even grid in log α. The evidence selects among them.
CONCENTRATIONS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0)
_SURPRISING = 3.0  # standard deviations of a chi-square beyond which a concentration is left out
_PER_DECADE, _MOST_CONCENTRATIONS = 3, 11  # of a given range of α
_SCALES = 3  # nodes of the covariance's unknown scale, with finite degrees of freedom
_MAX_ITERATIONS = 60
_DAMPING = 0.5
_TOLERANCE = 1e-3  # relative change of the sites' precisions
_REACH = 8.0  # standard deviations of the summed range on either side
_WHOLE = 48  # counts 0, 1, …, _WHOLE - 1 are summed one by one if the range includes 0
_NODES = 224  # further nodes per class
_VIRTUAL_TOTAL = 2000  # K if it is unknown
_NARROWEST = 0.29  # least standard deviation of a matched marginal: that of a cell, in labels
_LEAST = 1e-14  # least variance
_SHARPENS = 0.5
_OFF = 0.2  # distance from 1 of the sum of means that did not converge
_LOOSE = 1e-6  # least precision of a cavity, relative to that of the marginal
_FLAT = 1e-10  # least precision of a site
_LEVELS = (np.arange(400) + 0.5) / 400  # of the quantiles that represent a marginal
_DRAWS, _SEED = 1000, 20
_NEGLIGIBLE = 1e-4  # posterior weight of a concentration that is left out

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """Posterior distribution of the shares.

    quantiles  (N, Q) of every class's marginal at the levels (k + ½) / Q
    draws      (R, N) joint draws with these marginals, each summing to 1
    mean       (N,) of the marginals, summing to 1
    alpha      posterior mean of log α, as α: small for clients with few classes
    evidence   log of ∫ N(z; centre, covariance) p(z) dz, averaged over α, up to a constant that
               depends on N and K alone
    """

    quantiles: Tensor
    draws: Tensor
    mean: Tensor
    alpha: float
    evidence: float

    def best_point(self) -> Tensor:
        """Shares (N,) of largest expected iAcc, ≥ 0 and summing to 1.

        iAcc is 1 - ½ Σ_n |x_n - z_n|, so that the best x on the simplex is x_n = F_n⁻¹(q), F_n the
        distribution of z_n, with one q for all classes, such that Σ x_n = 1.
        """
        table = self.quantiles.numpy()
        low, high = 0.0, 1.0
        for _ in range(50):
            level = (low + high) / 2
            low, high = (level, high) if _at(table, level).sum() < 1 else (low, level)
        below, above = _at(table, low), _at(table, high)
        gap = above.sum() - below.sum()
        part = float(np.clip((1 - below.sum()) / gap, 0, 1)) if gap > 0 else 0.0
        point = np.maximum(below + part * (above - below), 0)
        if not point.sum() > 0:
            return self.mean
        return torch.from_numpy(point / point.sum())

    def interval(self, confidence: float) -> tuple[Tensor, Tensor]:
        """Bounds of every share, (N,) each: the central interval of its marginal.

        confidence  pointwise coverage of each interval, such as 0.9
        """
        table = self.quantiles.numpy()
        bounds = (_at(table, level) for level in ((1 - confidence) / 2, (1 + confidence) / 2))
        low, high = (torch.from_numpy(bound).clamp(0, 1) for bound in bounds)
        return low, high

    def widened(self, variance: Tensor) -> Posterior:
        """The posterior with a further error of the shares; its best point stays about the same.

        variance  (N,) of the error, which is added to that of every marginal
        """
        centre = self.quantiles.median(1).values
        deviation = (self.quantiles - self.quantiles.mean(1, keepdim=True)).square().mean(1)
        factor = (1 + variance / deviation.clamp_min(_LEAST)).sqrt()
        factor = factor.where(variance > 0, torch.ones_like(factor))
        quantiles = (centre[:, None] + factor[:, None] * (self.quantiles - centre[:, None])).clamp(
            0, 1
        )
        draws = (centre + factor * (self.draws - centre)).clamp_min(0)
        return replace(self, quantiles=quantiles, draws=draws / draws.sum(1, keepdim=True))

    def blurred(self, deviation: Tensor) -> Posterior:
        """The posterior with a further, normal error of the shares.

        deviation  (N,) its standard deviation, added to that of every marginal
        """
        if not bool(deviation.any()):
            return self
        levels = torch.from_numpy(ndtri(_LEVELS))
        noise = np.random.default_rng(_SEED + 1).standard_normal(tuple(self.draws.shape))
        draws = (self.draws + deviation * torch.from_numpy(noise)).clamp_min(0)
        return replace(
            self,
            quantiles=(self.quantiles + deviation[:, None] * levels).clamp(0, 1),
            draws=draws / draws.sum(1, keepdim=True).clamp_min(_LEAST),
        )

    def expected_iacc(self, shares: Tensor, confidence: float) -> tuple[float, float, float]:
        """Expected iAcc of `shares` (N,), and the bounds of its central interval."""
        each = torch.minimum(self.draws, shares.double()).sum(1)
        tail = (1 - confidence) / 2
        low, high = each.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
        return float(each.mean()), low, high

    def expected_floor(self) -> float:
        """Expected iAcc of a uniform guess."""
        return float(self.draws.clamp(max=1 / self.draws.shape[1]).sum(1).mean())


@dataclass(frozen=True)
class _Sites:
    """Gaussian sites exp(-τ z²/2 + ν z) in place of the prior of each class, (N,) each."""

    precision: _Array
    shift: _Array


@dataclass(frozen=True)
class _Propagated:
    """Result under one concentration and scale.

    nodes, weights  (N, M) support of every marginal and its probabilities
    covariance      (N, N) of the Gaussian approximation
    evidence        log evidence, up to a constant
    """

    nodes: _Array
    weights: _Array
    covariance: _Array
    evidence: float

    @property
    def sums_to_one(self) -> bool:
        """Whether the means do, which the propagation gives where it has converged."""
        return abs(float((self.nodes * self.weights).sum()) - 1) < _OFF


def posterior(
    centre: Tensor,
    covariance: Tensor,
    total: int | None = None,
    *,
    degrees: float = np.inf,
    concentrations: tuple[float, ...] = CONCENTRATIONS,
) -> Posterior | None:
    """Posterior of shares z = c/K under N(z; centre, covariance) × Dirichlet-multinomial(c; α, K).

    centre          (N,)    unconstrained shares of any sign, summing to 1
    covariance      (N, N)  of their error, singular along (1, …, 1)
    total           K; None if unknown
    degrees         of freedom of the covariance's scale: few make the likelihood a Student's
                    (Sellentin and Heavens 2016)
    concentrations  α to average over, equally likely before
    returns         None if the computation fails

    The results for every α are averaged by their evidence. Each is computed by expectation
    propagation (Minka 2001; with bounds: Cunningham, Hennig and Lacoste-Julien 2011). The
    covariance contains the plane Σz = 1, on which the prior is that of independent negative
    binomial counts with mean K/N. Each is replaced by the Gaussian that gives the class's marginal
    the same mean and variance.

    An α under which the estimate lies implausibly far from even shares is left out (a prior
    predictive check): the evidence alone prefers any prior that is narrow enough where the
    covariance is too large in most directions, as it is around few large classes.
    """
    mean = centre.double().cpu().numpy()
    spread = covariance.double().cpu().numpy()
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        return None
    labels = _VIRTUAL_TOTAL if total is None else total
    scales = _scales(degrees)
    try:
        found = [
            (alpha, _propagate(mean, spread * scale, alpha, labels))
            for alpha in concentrations
            for scale in scales
        ]
    except np.linalg.LinAlgError:
        return None
    found = [(alpha, one) for alpha, one in found if one.sums_to_one]
    possible = [pair for pair in found if _foretells(mean, spread, pair[0], labels)]
    found = possible or found
    if not found:
        return None
    logs = np.array([one.evidence for _, one in found])
    if not np.isfinite(logs).any():
        return None
    logs = np.where(np.isfinite(logs), logs, -np.inf)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    alphas = np.array([alpha for alpha, _ in found])
    evidence = float(np.log(np.exp(logs - logs.max()).mean()) + logs.max())
    kept = [(w, one) for w, (_, one) in zip(weights, found, strict=True) if w > _NEGLIGIBLE]
    return _averaged(kept, float(np.exp(weights @ np.log(alphas))), evidence)


def _foretells(centre: _Array, covariance: _Array, alpha: float, total: int) -> bool:
    """Whether the estimate is as near to even shares as estimates are under α.

    Its squared distance, in units of the covariance of estimates, is chi-square with N - 1 degrees
    of freedom if both are normal.
    """
    classes = len(centre)
    each = total / classes
    prior = each * (1 + each / alpha) / total**2
    basis = np.linalg.qr((np.eye(classes) - 1 / classes)[:, 1:])[0]
    away = basis.T @ (centre - 1 / classes)
    spread = basis.T @ covariance @ basis + prior * np.eye(classes - 1)
    distance = float(away @ np.linalg.solve(spread, away)) / (classes - 1)
    return distance < 1 + _SURPRISING * math.sqrt(2 / (classes - 1))


def concentrations_in(low: float, high: float) -> tuple[float, ...]:
    """An even grid in log α from `low` to `high`, both included; one value if they are equal."""
    steps = int(np.ceil(_PER_DECADE * np.log10(high / low)))
    count = 1 if steps == 0 else min(steps + 1, _MOST_CONCENTRATIONS)
    return tuple(np.geomspace(low, high, count).tolist())


def _scales(degrees: float) -> _Array:
    """Equally likely factors on the covariance: inverse chi-square quantiles, mean about 1."""
    if not np.isfinite(degrees):
        return np.ones(1)
    levels = (np.arange(_SCALES) + 0.5) / _SCALES
    return np.asarray(degrees / chi2.ppf(levels, degrees))


def _averaged(parts: list[tuple[float, _Propagated]], alpha: float, evidence: float) -> Posterior:
    """The mixture of the results under several concentrations, by their weights."""
    nodes = np.concatenate([one.nodes for _, one in parts], 1)
    mass = np.concatenate([weight * one.weights for weight, one in parts], 1)
    mass /= mass.sum(1, keepdims=True)
    mean = (nodes * mass).sum(1)
    order = nodes.argsort(1, kind="stable")
    nodes, mass = np.take_along_axis(nodes, order, 1), np.take_along_axis(mass, order, 1)
    quantiles = np.stack([_quantiles(x, p) for x, p in zip(nodes, mass, strict=True)])
    most = max(parts, key=lambda part: part[0])[1]
    return Posterior(
        torch.from_numpy(quantiles),
        torch.from_numpy(_draws(quantiles, most.covariance)),
        torch.from_numpy(mean / mean.sum()),
        alpha,
        evidence,
    )


def _quantiles(nodes: _Array, mass: _Array) -> _Array:
    """Quantiles (Q,) of one marginal. A count of probability 1 has itself at every level.

    nodes  (M,) increasing
    mass   (M,) summing to 1
    """
    places = np.searchsorted(mass.cumsum(), _LEVELS)
    return np.asarray(nodes[np.minimum(places, len(nodes) - 1)])


def _draws(quantiles: _Array, covariance: _Array) -> _Array:
    """Draws (R, N) with the given marginals, correlated as in `covariance` (a Gaussian copula)."""
    deviation = np.sqrt(np.maximum(np.diag(covariance), _LEAST))
    correlation = covariance / np.outer(deviation, deviation)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    noise = np.random.default_rng(_SEED).standard_normal((_DRAWS, len(root)))
    levels = ndtr(noise @ root)
    drawn = np.stack(
        [_at(row[None], level) for row, level in zip(quantiles, levels.T, strict=True)]
    )
    drawn = np.maximum(drawn[:, 0] if drawn.ndim == 3 else drawn, 0).T
    sums = drawn.sum(1, keepdims=True)
    return np.asarray(np.where(sums > 0, drawn / np.where(sums > 0, sums, 1), 1 / len(root)))


def _at(table: _Array, level: float | _Array) -> _Array:
    """Quantiles of every marginal (N,) at a level, or of a single one at several levels."""
    if np.ndim(level):
        return np.asarray(np.interp(level, _LEVELS, table[0]))
    place = np.clip(level * len(_LEVELS) - 0.5, 0, len(_LEVELS) - 1)
    below = int(place)
    above = min(below + 1, len(_LEVELS) - 1)
    return np.asarray(table[:, below] + (place - below) * (table[:, above] - table[:, below]))


def _propagate(centre: _Array, covariance: _Array, alpha: float, total: int) -> _Propagated:
    """Expectation propagation under one concentration, with damped updates."""
    classes = len(centre)
    each = total / classes
    start = total**2 / (each * (1 + each / alpha))  # 1 / variance of the prior of one class
    sites = _Sites(np.full(classes, start), np.full(classes, start / classes))
    decay = np.log1p(alpha / each)
    least = max(_LEAST, (_NARROWEST / total) ** 2)
    for _ in range(_MAX_ITERATIONS):
        mean, variance, _, _ = _marginals(centre, covariance, sites)
        precision = np.maximum(1 / variance - sites.precision, _LOOSE / variance)
        cavity = (mean / variance - sites.shift) / precision
        log_mass, nodes, weights = _tilted(cavity, precision**-0.5, (alpha, decay), total)
        matched = (weights * nodes).sum(1)
        width = (weights * (nodes - matched[:, None]) ** 2).sum(1)
        # No wider than half of the cavity: a site sharpens.
        width = np.maximum(width, np.minimum(least, _SHARPENS / precision))
        wanted = np.maximum(1 / width - precision, _FLAT)
        change = np.abs(wanted - sites.precision).max() / wanted.max()
        shift = matched * (wanted + precision) - cavity * precision
        sites = _Sites(
            sites.precision + _DAMPING * (wanted - sites.precision),
            sites.shift + _DAMPING * (shift - sites.shift),
        )
        if change < _TOLERANCE:
            break
    _, _, log_gaussians, left = _marginals(centre, covariance, sites)
    whole = precision + sites.precision
    log_site = ((cavity * precision + sites.shift) ** 2 / whole - cavity**2 * precision) / 2
    log_site -= np.log(whole / precision) / 2
    normaliser = gammaln(classes * alpha) - gammaln(total + classes * alpha) + decay * total
    normaliser += gammaln(total + 1) - classes * gammaln(alpha)
    evidence = float((log_mass - log_site).sum()) + log_gaussians + float(normaliser)
    return _Propagated(nodes, weights, left, evidence)


def _marginals(
    centre: _Array, covariance: _Array, sites: _Sites
) -> tuple[_Array, _Array, float, _Array]:
    """Mean, variance (N,), log mass and covariance of N(centre, covariance) times the sites."""
    root = np.sqrt(sites.precision)
    factor = np.linalg.cholesky(np.eye(len(centre)) + root[:, None] * covariance * root)
    half = solve_triangular(factor, root[:, None] * covariance, lower=True, check_finite=False)
    left = covariance - half.T @ half
    pull = sites.shift - sites.precision * centre
    moved = left @ pull
    mass = centre @ (sites.shift + pull) / 2 + pull @ moved / 2 - np.log(np.diag(factor)).sum()
    return centre + moved, np.maximum(np.diag(left), _LEAST), float(mass), left


def _tilted(
    mean: _Array, deviation: _Array, prior: tuple[float, float], total: int
) -> tuple[_Array, _Array, _Array]:
    """Log mass (N,), nodes and probabilities (N, M) of N(mean, deviation²) × prior, z = c/K.

    prior  α and λ of Γ(c + α) / c! · exp(-λ c): counts that are negative binomial around K/N

    Sums over whole c. Far from 0 and above `_WHOLE` the sum is over fewer nodes, each with the
    number of counts it stands for. A mean far below 0 leaves an exponential tail, whose length sets
    the range.
    """
    alpha, decay = prior
    below = np.maximum(-mean / deviation, 0)
    top = np.maximum(mean + _REACH * deviation, _REACH * deviation / (1 + below)) * total
    top = np.minimum(np.maximum(top, 1.0), total)
    low = np.minimum(np.maximum((mean - _REACH * deviation) * total, 0), total)
    counts, room = _counts(low, top, total)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(room) + gammaln(counts + alpha) - gammaln(counts + 1) - decay * counts
    bell = ((counts / total - mean[:, None]) / deviation[:, None]) ** 2 / 2
    logs = logs - bell - np.log(deviation)[:, None]
    most = logs.max(1, keepdims=True)
    weights = np.exp(logs - most)
    mass = weights.sum(1, keepdims=True)
    return (np.log(mass) + most)[:, 0], counts / total, weights / mass


def _counts(low: _Array, top: _Array, total: int) -> tuple[_Array, _Array]:
    """Nodes (N, M) among the counts between `low` and `top`, and how many counts each stands for.

    Zero room for a node that repeats another one.
    """
    classes = len(low)
    whole = np.arange(_WHOLE, dtype=float)
    start = np.where(low < _WHOLE, _WHOLE, np.floor(low))
    end = np.maximum(np.ceil(top), start)
    steps = np.linspace(0, 1, _NODES + 1)
    near = (low < _WHOLE)[:, None]
    # Edges between nodes: evenly spaced in log c from _WHOLE on, in c far from 0.
    ratio = (end + 0.5) / (start - 0.5)
    edges = np.where(
        near,
        (start - 0.5)[:, None] * ratio[:, None] ** steps,
        (start - 0.5)[:, None] + (end - start + 1)[:, None] * steps,
    )
    whole_edges = np.floor(edges + 0.5) - 0.5
    spans = np.diff(whole_edges, axis=1)
    middles = (whole_edges[:, 1:] + whole_edges[:, :-1]) / 2
    inside = np.where(low < _WHOLE, 1.0, 0.0)[:, None] * (whole <= total)
    counts = np.concatenate([np.broadcast_to(whole, (classes, _WHOLE)), middles], 1)
    room = np.concatenate([inside, spans * (middles <= total)], 1)
    return np.minimum(counts, total), room


def mixed_posterior(posteriors: Sequence[Posterior], weights: Sequence[float]) -> Posterior:
    """The mixture of several posteriors of the same shares.

    weights  summing to 1
    """
    nodes = np.concatenate([one.quantiles.numpy() for one in posteriors], 1)
    mass = np.repeat(np.asarray(weights) / len(_LEVELS), len(_LEVELS))
    order = nodes.argsort(1, kind="stable")
    ordered, masses = np.take_along_axis(nodes, order, 1), mass[order]
    levels = masses.cumsum(1) - masses / 2
    table = np.stack([np.interp(_LEVELS, p, x) for p, x in zip(levels, ordered, strict=True)])
    ends = np.round(np.cumsum([0.0, *weights]) / sum(weights) * _DRAWS).astype(int)
    draws = [one.draws[a:b] for one, a, b in zip(posteriors, ends[:-1], ends[1:], strict=True)]
    means = torch.stack([one.mean for one in posteriors])
    mean = torch.tensor(weights, dtype=torch.float64) @ means
    logs = sum(w * np.log(one.alpha) for one, w in zip(posteriors, weights, strict=True))
    most = posteriors[int(np.argmax(weights))]
    return Posterior(
        torch.from_numpy(table),
        torch.cat(draws),
        mean / mean.sum(),
        float(np.exp(logs)),
        most.evidence,
    )


def moved_posterior(one: Posterior, step: Tensor) -> Posterior:
    """The posterior around another answer, shares below 0 set to 0.

    step  (N,) from the one answer to the other
    """
    draws = (one.draws + step).clamp_min(0)
    mean = (one.mean + step).clamp_min(0)
    return replace(
        one,
        quantiles=(one.quantiles + step[:, None]).clamp(0, 1),
        draws=draws / draws.sum(1, keepdim=True).clamp_min(_LEAST),
        mean=mean / mean.sum().clamp_min(_LEAST),
    )


def posterior_mean(centre: Tensor, covariance: Tensor) -> Tensor | None:
    """Mean (N,) of `posterior`; None if the computation fails."""
    found = posterior(centre, covariance)
    return None if found is None else found.mean
