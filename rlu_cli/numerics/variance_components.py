"""Generalised least squares with variance components estimated by restricted likelihood (REML).

y = F z + noise. The noise is a known part and a few parts of unknown size, σ² = Σ_k θ_k V_k. The
sizes θ are those of largest restricted likelihood, which integrates over z and so does not take a
good fit with N unknowns for small noise (Patterson and Thompson 1971).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

_WIDEST = 30.0  # standard deviation of a share that no row depends on
_FEW, _MANY = 60, 220  # evaluations from a start near the optimum, and from any
_FIRST, _STEP = 0.1, 1.5  # first guess relative to the prior scale, and step in log θ
_RANGE = (-25.0, 5.0)  # of log θ
_UNUSABLE = 1e12

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Component:
    """One part of the noise of unknown size θ ≥ 0, of covariance θ V.

    name        for the report
    covariance  V (D, D)
    scale       prior scale of θ: √θ is exponential with mean √scale
    largest     bound of θ
    """

    name: str
    covariance: _Array
    scale: float
    largest: float = math.inf


@dataclass(frozen=True)
class Problem:
    """y = F z + noise on the plane Σz = 1.

    observed    y (D,)
    means       F (N, D)
    known       (D, D) the part of the noise of known size; multiplied by ω in `scaled` rows
    fixed       (D, D) a further part, not multiplied
    components  parts of unknown size; multiplied by ω too
    scaled      (D,) bool: rows whose noise has an unknown factor ω, log-normal
    centre      median of ω
    deviation   prior standard deviation of log ω. It is at most one below its median: the noise of
                known size is there, however quiet the rows that no shares move happen to be
    """

    observed: _Array
    means: _Array
    known: _Array
    fixed: _Array
    components: tuple[Component, ...]
    scaled: NDArray[np.bool_]
    centre: float
    deviation: float

    @property
    def least(self) -> float:
        """Least ω."""
        return self.centre * math.exp(-self.deviation)


@dataclass(frozen=True)
class Fit:
    """Solution at the most likely sizes.

    unconstrained  (N,) z without z ≥ 0, summing to 1
    covariance     (N, N) of its error on the plane Σz = 1
    chi_square     squared whitened residual per degree of freedom, D - N + 1
    degrees        of freedom
    sizes          log θ of the components, then log ω
    cost           -2 log restricted likelihood, priors of the sizes included
    gain           (N, D) by which an error of y moves z
    """

    unconstrained: _Array
    covariance: _Array
    chi_square: float
    degrees: int
    sizes: _Array
    cost: float
    gain: _Array

    def named(self, problem: Problem) -> dict[str, float]:
        """The sizes by name."""
        names = [one.name for one in problem.components] + ["noise scale"] * bool(
            problem.scaled.any()
        )
        largest = [one.largest for one in problem.components] + [math.inf]
        return {
            name: min(math.exp(size), bound)
            for name, size, bound in zip(names, self.sizes, largest, strict=False)
        }


def fit(problem: Problem, start: _Array | None = None) -> Fit:
    """Solve for z and the sizes.

    start  sizes of a similar problem; None for a cold start
    """
    plane = _Plane(problem)
    first, steps = _first_guess(problem)
    first = first if start is None or len(start) != len(first) else start
    sizes, cost = first, plane.cost(first)
    if len(first):
        corners = np.vstack([first, first + np.diag(steps)])
        found = minimize(
            plane.cost,
            first,
            method="Nelder-Mead",
            options={
                "maxfev": _MANY if start is None else _FEW,
                "xatol": 0.02,
                "fatol": 0.05,
                "initial_simplex": corners,
            },
        )
        sizes, cost = np.clip(found.x, *_RANGE), float(found.fun)
    return plane.solved(sizes, cost)


def at_scale(problem: Problem, sizes: _Array, least: float) -> Fit:
    """The solution at given sizes, with a factor ω of `least` or more.

    For comparisons between problems: rows that happen to vary little would favour whichever of them
    allows the smallest noise.
    """
    raised = sizes.copy()
    if problem.scaled.any():
        raised[-1] = max(raised[-1], math.log(least))
    plane = _Plane(problem)
    return plane.solved(raised, plane.cost(raised))


def _first_guess(problem: Problem) -> tuple[_Array, _Array]:
    """Log sizes to start from, and the steps of the first simplex."""
    guesses = [math.log(_FIRST * one.scale) for one in problem.components]
    steps = [_STEP] * len(guesses)
    if problem.scaled.any():
        guesses.append(math.log(problem.centre))
        steps.append(problem.deviation)
    return np.array(guesses), np.array(steps)


class _Plane:
    """The problem in coordinates of the plane Σz = 1."""

    def __init__(self, problem: Problem) -> None:
        classes = len(problem.means)
        self._problem = problem
        self._uniform = np.full(classes, 1 / classes)
        centring = np.eye(classes) - 1 / classes
        self._basis = np.linalg.qr(centring[:, 1:])[0]  # (N, N - 1), spans Σ = 0
        self._columns = problem.means.T @ self._basis
        self._target = problem.observed - problem.means.T @ self._uniform

    def cost(self, sizes: _Array) -> float:
        """-2 log restricted likelihood and log prior of the sizes."""
        try:
            factor: _Array = np.linalg.cholesky(self._noise(sizes)).astype(np.float64)
        except np.linalg.LinAlgError:
            return _UNUSABLE
        columns, target = self._white(factor)
        information = columns.T @ columns + np.eye(columns.shape[1]) / _WIDEST**2
        half = np.linalg.cholesky(information)
        explained = solve_triangular(half, columns.T @ target, lower=True)
        logs = np.log(np.diag(factor)).sum() + np.log(np.diag(half)).sum()
        return float(2 * logs + target @ target - explained @ explained) + self._prior(sizes)

    def solved(self, sizes: _Array, cost: float) -> Fit:
        """The estimate at given sizes."""
        factor: _Array = np.linalg.cholesky(self._noise(sizes)).astype(np.float64)
        columns, target = self._white(factor)
        information = columns.T @ columns + np.eye(columns.shape[1]) / _WIDEST**2
        inverse = np.linalg.inv(information)
        amounts = inverse @ (columns.T @ target)
        residual = target - columns @ amounts
        degrees = max(len(target) - columns.shape[1], 1)
        return Fit(
            unconstrained=self._uniform + self._basis @ amounts,
            covariance=self._basis @ inverse @ self._basis.T,
            chi_square=float(residual @ residual) / degrees,
            degrees=degrees,
            sizes=sizes,
            cost=cost,
            gain=self._basis @ inverse @ solve_triangular(factor.T, columns).T,
        )

    def _white(self, factor: _Array) -> tuple[_Array, _Array]:
        both = solve_triangular(factor, np.column_stack([self._columns, self._target]), lower=True)
        return both[:, :-1], both[:, -1]

    def _noise(self, sizes: _Array) -> _Array:
        problem = self._problem
        total = problem.known.copy()
        for one, size in zip(problem.components, sizes, strict=False):
            total += min(math.exp(size), one.largest) * one.covariance
        if problem.scaled.any():
            factor = max(math.exp(sizes[-1]), problem.least)
            root = np.where(problem.scaled, math.sqrt(factor), 1.0)
            total = total * np.outer(root, root)
        return np.asarray(total + problem.fixed)

    def _prior(self, sizes: _Array) -> float:
        problem = self._problem
        cost = sum(
            2 * math.sqrt(math.exp(min(size, _RANGE[1])) / one.scale)
            for one, size in zip(problem.components, sizes, strict=False)
        )
        if problem.scaled.any():
            cost += ((sizes[-1] - math.log(problem.centre)) / problem.deviation) ** 2
        return cost


def sizes_of(fits: Sequence[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """Weighted mean of named sizes over several fits; weights sum to 1."""
    names = dict.fromkeys(name for _, sizes in fits for name in sizes)
    return {n: sum(w * sizes.get(n, 0.0) for w, sizes in fits) for n in names}
