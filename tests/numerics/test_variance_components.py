"""Sizes of the parts of the noise, on data whose sizes are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from rlu_cli.numerics.variance_components import Component, Fit, Problem, fit, sizes_of

Array = NDArray[np.float64]

CLASSES = 6


def covariance(rows: int, seed: int) -> Array:
    """One of full rank, entries of about 1 on the diagonal."""
    root = np.random.default_rng(seed).standard_normal((rows, rows + 5)) / (rows + 5) ** 0.5
    return np.asarray(root @ root.T)


def problem(
    rows: int,
    seed: int,
    *,
    sizes: tuple[float, ...] = (),
    omega: float | None = None,
    known: float = 1e-6,
) -> tuple[Problem, Array]:
    """y = F z + noise of the given sizes, and z.

    omega  factor on the noise of all rows but the last third; None for no such rows
    """
    rng = np.random.default_rng((rows, seed))
    means = rng.standard_normal((CLASSES, rows))
    shares = rng.dirichlet([1.0] * CLASSES)
    components = tuple(
        Component(f"part {k}", covariance(rows, 100 + k), 0.1) for k in range(len(sizes))
    )
    base = known * np.eye(rows)
    scaled = np.zeros(rows, dtype=bool)
    if omega is not None:
        scaled[: 2 * rows // 3] = True
    root = np.where(scaled, math.sqrt(omega or 1.0), 1.0)
    noise = base + sum(size * one.covariance for size, one in zip(sizes, components, strict=True))
    noise = noise * np.outer(root, root)
    observed = shares @ means + np.linalg.cholesky(noise) @ rng.standard_normal(rows)
    zero = np.zeros((rows, rows))
    made = Problem(observed, means, base, zero, components, scaled, 1.0, 0.5)
    return made, shares


def found_size(found: Fit) -> float:
    return math.exp(found.sizes[0])


@pytest.mark.parametrize("size", [1e-4, 1e-2, 0.3])
def test_the_size_of_a_part_is_found(size: float) -> None:
    logs = [fit(problem(80, seed, sizes=(size,))[0]).sizes[0] for seed in range(6)]
    assert np.mean(logs) == pytest.approx(math.log(size), abs=0.3)


def test_two_parts_are_told_apart() -> None:
    found = [fit(problem(120, seed, sizes=(0.02, 0.2))[0]).sizes for seed in range(6)]
    first, second = np.mean(found, 0)
    assert first == pytest.approx(math.log(0.02), abs=1.0)
    assert second == pytest.approx(math.log(0.2), abs=0.4)


def test_few_rows_more_than_unknowns_do_not_make_the_noise_small() -> None:
    """Eight rows, five unknowns: plain likelihood would find 3/8 of the variance."""
    size, total = 0.05, []
    for seed in range(60):
        made, _ = problem(8, seed, sizes=(size,))
        flat = replace(made, components=(replace(made.components[0], scale=1e6),))
        total.append(found_size(fit(flat)))
    assert np.mean(total) == pytest.approx(size, rel=0.3)
    assert np.mean(total) > 1.5 * size * 3 / 8


def test_without_parts_it_is_generalised_least_squares() -> None:
    made, shares = problem(40, 0, known=1e-4)
    found = fit(made)
    assert len(found.sizes) == 0
    assert found.named(made) == {}
    assert found.unconstrained == pytest.approx(shares, abs=0.02)
    plane = np.linalg.qr((np.eye(CLASSES) - 1 / CLASSES)[:, 1:])[0]
    columns = made.means.T @ plane
    target = made.observed - made.means.mean(0)
    amounts = np.linalg.lstsq(columns, target, rcond=None)[0]
    assert found.unconstrained == pytest.approx(1 / CLASSES + plane @ amounts, abs=1e-6)
    expected = plane @ np.linalg.inv(columns.T @ columns) @ plane.T * 1e-4
    assert found.covariance == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert found.degrees == 40 - CLASSES + 1


def test_shares_sum_to_one_and_their_errors_to_zero() -> None:
    found = fit(problem(30, 1, sizes=(0.05,))[0])
    assert found.unconstrained.sum() == pytest.approx(1)
    assert np.abs(found.covariance.sum(0)).max() < 1e-9
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-9


def test_the_errors_are_as_large_as_the_covariance_says() -> None:
    scores = []
    for seed in range(40):
        made, shares = problem(30, seed, sizes=(0.02,))
        found = fit(made)
        scores.append((found.unconstrained - shares) ** 2 / np.diag(found.covariance))
    assert np.mean(scores) == pytest.approx(1, abs=0.3)


def test_the_noise_model_that_holds_has_a_chi_square_near_one() -> None:
    found = [fit(problem(60, seed, sizes=(0.05,))[0]).chi_square for seed in range(6)]
    assert np.mean(found) == pytest.approx(1, abs=0.15)
    bad, _ = problem(60, 0, known=1e-4)
    too_small = replace(bad, known=bad.known / 100)
    assert fit(too_small).chi_square > 50


def test_the_factor_of_some_rows_follows_from_the_others() -> None:
    wide = [fit(problem(120, s, sizes=(0.05,), omega=2.5)[0]) for s in range(6)]
    narrow = [fit(problem(120, s, sizes=(0.05,), omega=0.4)[0]) for s in range(6)]
    sizes = [np.mean([one.sizes[-1] for one in many]) for many in (wide, narrow)]
    assert sizes[0] > 0.4
    assert sizes[1] < -0.4
    made, _ = problem(120, 0, sizes=(0.05,), omega=2.5)
    assert list(wide[0].named(made)) == ["part 0", "noise scale"]


def test_the_cost_falls_and_a_warm_start_reaches_the_same() -> None:
    for seed in range(4):
        made, _ = problem(60, seed, sizes=(0.01, 0.1), omega=1.5)
        cold = fit(made)
        warm = fit(made, cold.sizes)
        assert warm.cost <= cold.cost + 0.05
        assert fit(made, np.array([-10.0, -10.0, 2.0])).cost > cold.cost - 3
        bare = fit(replace(made, components=(), scaled=np.zeros_like(made.scaled)))
        assert cold.cost < bare.cost, "the data have such parts"
        assert warm.unconstrained == pytest.approx(cold.unconstrained, abs=0.01)


def test_the_start_of_another_problem_is_not_taken() -> None:
    made, _ = problem(40, 0, sizes=(0.05,))
    assert fit(made, np.zeros(5)).sizes == pytest.approx(fit(made).sizes)


def test_rows_that_tell_nothing_leave_even_shares() -> None:
    made, _ = problem(20, 0, known=1e-2)
    blind = replace(made, means=np.zeros_like(made.means))
    found = fit(blind)
    assert found.unconstrained == pytest.approx(np.full(CLASSES, 1 / CLASSES))
    assert np.diag(found.covariance).min() > 100


def test_named_sizes_are_averaged_by_weight() -> None:
    parts = [(0.25, {"a": 4.0, "b": 2.0}), (0.75, {"a": 0.0})]
    assert sizes_of(parts) == {"a": 1.0, "b": 0.5}
