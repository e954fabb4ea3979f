"""Bayes: posterior of the label shares from all measurements, their noise estimated from the case.

Not in the paper. As `fusion`, it combines the bias update, the weight update and the BatchNorm
means. What `fusion` decides by thresholds, and what it assumes of the noise, is estimated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.fixed_point import start
from rlu_cli.attacks.method import Method
from rlu_cli.attacks.noise_model import NoiseModel, Round, round_of, row_blocks
from rlu_cli.attacks.observations import INTERPOLATION, TILT
from rlu_cli.attacks.path import confidence_along, progress
from rlu_cli.numerics.output_means import class_confidence, tilted
from rlu_cli.numerics.posterior import (
    CONCENTRATIONS,
    Posterior,
    concentrations_in,
    posterior,
)
from rlu_cli.numerics.simplex import nearest_shares
from rlu_cli.numerics.variance_components import Fit, Problem, at_scale, fit, sizes_of
from rlu_cli.types import Evidence, Interpolation, Recovery, Status

# log λ of a model that separates its classes: mean, standard deviation, and the values averaged, in
# standard deviations from the mean.
_RATIO_MEAN, _RATIO_STD = -0.2, 0.35
_RATIO_NODES = (0.0, 0.57, -0.6, 0.9, -1.3, -2.0)
_WITHIN_NODE, _UNTRAINED = 0.15, 0.02  # standard deviation of log λ about a value
_LEARNED = 0.04  # mean own-class probability above chance, as a part of 1 - chance
_FIRST_ITERATIONS, _ITERATIONS = 3, 2
_EVEN = 0.05  # part of even shares mixed into the shares that determine the noise
_FEW_CONCENTRATIONS = (0.05, 0.2, 0.5, 2.0, 30.0)


@dataclass(frozen=True)
class _Solution:
    """Solution for one assumed error ratio λ.

    cost       -2 log of the marginal likelihood and the prior
    extra      (N,) variance of the shares because λ may differ from class to class
    shared     (N, N) covariance of the shares from the error of the class means
    """

    ratio: float
    fitted: Fit
    problem: Problem
    points: Tensor
    cost: float
    extra: Tensor
    shared: Tensor


@dataclass(frozen=True)
class Bayes:
    """Posterior of the shares z of y = F z + noise, averaged over the error ratio by evidence.

    prior  least and largest Dirichlet concentration of the client's labels; None: any

    Rows as in `fusion`. The covariances within classes are shrunk, the sizes of the discrepancies
    are those of largest restricted likelihood (`noise_model`, `numerics.variance_components`), and
    the ratio λ of the client's errors to the server's is integrated over. The reported shares have
    the largest expected iAcc.
    """

    prior: tuple[float, float] | None = None

    def __call__(self, evidence: Evidence) -> Recovery:
        return _recovered(evidence, _Prior.of(evidence, self.prior))


@dataclass(frozen=True)
class _Prior:
    """What is known of the labels before: K of one pass, and the concentrations that may be."""

    total: int | None
    concentrations: tuple[float, ...]
    few: tuple[float, ...]

    @staticmethod
    def of(evidence: Evidence, given: tuple[float, float] | None) -> _Prior:
        total = None if evidence.total is None else evidence.total // evidence.passes
        if given is None:
            return _Prior(total, CONCENTRATIONS, _FEW_CONCENTRATIONS)
        grid = concentrations_in(*given)
        return _Prior(total, grid, grid)

    def posterior(self, centre: Tensor, covariance: Tensor) -> Posterior | None:
        return posterior(centre, covariance, self.total, concentrations=self.concentrations)


def _recovered(evidence: Evidence, prior: _Prior) -> Recovery:
    interpolation = _usable(evidence)
    if not interpolation.means and not (evidence.linear and evidence.lr_known):
        return shared(evidence, torch.zeros(evidence.classes), notes=interpolation.notes)
    moved = round_of(evidence, interpolation.outputs)
    solutions = _solutions(evidence, interpolation, moved, prior)
    weights = torch.softmax(-torch.tensor([one.cost for one in solutions]).double() / 2, 0)
    centre, covariance = _mean(solutions, weights)
    found = prior.posterior(centre, covariance) or _of_misfit(centre, covariance, prior)
    if found is None:
        return shared(evidence, torch.zeros(evidence.classes), Status.UNSOLVED)
    extra = _sum_of(weights, [one.extra for one in solutions])
    estimate = centre, covariance, extra
    return _answer(evidence, found.widened(extra), estimate, solutions, weights, moved)


def _usable(evidence: Evidence) -> Interpolation:
    """The interpolation, without BatchNorm means that say nothing of the labels.

    In a network that does not separate the classes yet, their means differ by less than the inputs
    of the layer drift over the round.
    """
    interpolation = evidence[INTERPOLATION]
    useful = _separates(interpolation) or not (evidence.linear and evidence.lr_known)
    return interpolation if useful else replace(interpolation, means=())


def _of_misfit(centre: Tensor, covariance: Tensor, prior: _Prior) -> Posterior | None:
    """The posterior if shares lie far below 0, in units of their error: that is a misfit.

    The covariance is inflated by the squared distance to the nearest shares per degree of freedom.
    """
    outside = centre - nearest_shares(centre, covariance)
    distance = outside @ torch.linalg.pinv(covariance, hermitian=True) @ outside
    return prior.posterior(centre, covariance * max(1.0, float(distance) / (len(centre) - 1)))


def _answer(
    evidence: Evidence,
    found: Posterior,
    estimate: tuple[Tensor, Tensor, Tensor],
    solutions: Sequence[_Solution],
    weights: Tensor,
    moved: Round,
) -> Recovery:
    best = solutions[int(weights.argmax())]
    centre, covariance, extra = estimate
    ratios = torch.tensor([one.ratio for one in solutions]).double()
    named = [one.fitted.named(one.problem) for one in solutions]
    answer = shared(
        evidence,
        found.best_point(),
        Status.SOLVED,
        notes=evidence[INTERPOLATION].notes,
        point_weights=best.points.tolist(),
        reduced_chi_square={"all rows": best.fitted.chi_square},
        error_ratio=float(weights @ ratios),
        noise=sizes_of(list(zip(weights.tolist(), named, strict=True))),
        concentration=found.alpha,
        folds=moved.folds,
    )
    return replace(
        answer,
        unconstrained=centre,
        covariance=covariance + _on_plane(extra),
        shared_covariance=_sum_of(weights, [one.shared for one in solutions]),
        posterior=found,
    )


def _solutions(
    evidence: Evidence, interpolation: Interpolation, moved: Round, prior: _Prior
) -> list[_Solution]:
    """A solution for every assumed pair of λ and β that could be solved."""
    trained = _separates(interpolation) and evidence.linear
    nodes = _RATIO_NODES if trained else (0.0,)
    tilt = evidence[TILT] or 0.0
    found: list[_Solution] = []
    for beta in dict.fromkeys((0.0, tilt / 2, tilt)):
        near: _Solution | None = None
        for node in sorted(nodes, key=abs):
            ratio = math.exp(_RATIO_MEAN + _RATIO_STD * node) if trained else 1.0
            spread = _UNTRAINED + _WITHIN_NODE * trained
            near = _solve(evidence, interpolation, moved, (ratio, spread, beta), near)
            weighed = _weighed(near, node, prior)
            if weighed is not None:
                found.append(weighed)
    return found or [replace(near, cost=0.0)] if near is not None else found


def _separates(interpolation: Interpolation) -> bool:
    """Whether the global model knows the classes of the auxiliary images better than chance."""
    confidence = class_confidence(interpolation.outputs[0])
    chance = 1 / len(confidence)
    return float(confidence.diagonal().mean()) - chance > _LEARNED * (1 - chance)


def _solve(
    evidence: Evidence,
    interpolation: Interpolation,
    moved: Round,
    assumed: tuple[float, float, float],
    near: _Solution | None,
) -> _Solution:
    """Iterate shares, their noise and the weights of the interpolation points.

    assumed  λ, standard deviation of log λ, β
    near     solution under other assumptions to start from
    """
    ratio, spread, beta = assumed
    labels = interpolation.outputs[0].labels.cpu()
    importance = tilted(interpolation.outputs[0], beta)
    confidence = confidence_along(interpolation, importance)
    shares, points = (
        start(evidence, interpolation) if near is None else (_shares(near), near.points)
    )
    sizes = None if near is None else near.fitted.sizes
    for _ in range(_FIRST_ITERATIONS if near is None else _ITERATIONS):
        rows = row_blocks(evidence, interpolation, points, importance)
        model = NoiseModel(evidence, rows, labels, importance, moved)
        problem = model.problem(_mixed(shares), ratio, spread)
        fitted = fit(problem, sizes)
        sizes = fitted.sizes
        shares = _constrained(fitted)
        if evidence.linear:
            points = progress(evidence, interpolation, _mixed(shares), confidence)
    gain = torch.from_numpy(fitted.gain)
    of_means = model.of_means(_mixed(shares), math.exp(fitted.sizes[0]))
    shared_part = gain @ of_means @ gain.T
    none = torch.zeros_like(shares)
    return _Solution(ratio, fitted, problem, points, fitted.cost, none, shared_part)


def _weighed(one: _Solution, node: float, prior: _Prior) -> _Solution | None:
    """The solution with the evidence of its shares in its cost; None if that cannot be computed.

    -2 log of ∫ p(y | z) p(z) dz: the restricted likelihood is that of a flat prior, the evidence
    of the posterior puts the prior of shares in its place.
    """
    compared = at_scale(one.problem, one.fitted.sizes, least=1.0)
    centre, covariance = _estimate(compared)
    found = posterior(centre, covariance, prior.total, concentrations=prior.few)
    if found is None:
        return None
    cost = compared.cost - 2 * found.evidence + node**2
    return replace(one, cost=cost, extra=_class_gaps(one))


def _class_gaps(one: _Solution) -> Tensor:
    """Variance of the shares (N,) because λ differs between classes.

    The gap of one class, 1 - λ_n, may be none or twice the mean: λ_n is uniform with width 1 - λ.
    With BatchNorm rows the update does not decide, and the gap does not enter.
    """
    if one.ratio >= 1 or not bool(one.problem.scaled.all()):
        return torch.zeros(len(one.problem.means), dtype=torch.float64)
    relative = min(1.0, (1 - one.ratio) / one.ratio / 12**0.5)
    shares = _shares(one)
    spread = torch.diag(shares) - torch.outer(shares, shares)
    return spread.square().sum(1) * relative**2


def _on_plane(variance: Tensor) -> Tensor:
    """Covariance (N, N) of independent errors (N,), projected on the plane Σz = 1."""
    centring = torch.eye(len(variance), dtype=torch.float64) - 1 / len(variance)
    return centring @ torch.diag(variance) @ centring


def _estimate(fitted: Fit) -> tuple[Tensor, Tensor]:
    """Unconstrained shares and covariance, inflated if the rows fit worse than they should."""
    centre = torch.from_numpy(fitted.unconstrained)
    covariance = torch.from_numpy(fitted.covariance)
    return centre, covariance * max(1.0, fitted.chi_square)


def _mean(solutions: Sequence[_Solution], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean of the estimates; their spread enters the covariance."""
    estimates = [_estimate(one.fitted) for one in solutions]
    centre = _sum_of(weights, [one for one, _ in estimates])
    covariance = _sum_of(weights, [one for _, one in estimates])
    away = torch.stack([one - centre for one, _ in estimates])
    return centre, covariance + (away * weights[:, None]).T @ away


def _sum_of(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Weighted sum of tensors of the same shape."""
    total: Tensor = torch.tensordot(weights, torch.stack(list(values)), 1)
    return total


def _shares(one: _Solution) -> Tensor:
    return _constrained(one.fitted)


def _constrained(fitted: Fit) -> Tensor:
    """Shares z ≥ 0 nearest to the unconstrained ones, in units of their error."""
    return nearest_shares(
        torch.from_numpy(fitted.unconstrained), torch.from_numpy(fitted.covariance)
    )


def _mixed(shares: Tensor) -> Tensor:
    """Shares with a little of every class, so that no class is without noise."""
    return shares * (1 - _EVEN) + _EVEN / len(shares)


METHOD = Method(
    title="bayes",
    paper="rlu, docs/method.md",
    attack=Bayes(),
    auxiliary=True,
    needs=frozenset({INTERPOLATION, TILT}),
    any_optimiser=True,
)
