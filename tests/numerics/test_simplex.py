"""Least squares on the simplex: exact where it can be, optimal where it cannot, never NaN."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize

from rlu_cli.numerics import simplex
from rlu_cli.numerics.simplex import coefficients, label_shares
from rlu_cli.types import Status

Array = NDArray[np.float64]


def _confidence(classes: int, own: float, seed: int) -> Array:
    """A random S whose diagonal is about `own`, the rest of each row spread unevenly."""
    generator = np.random.default_rng(seed)
    rest = generator.gamma(0.5, 1.0, (classes, classes)) + 1e-6
    np.fill_diagonal(rest, 0.0)
    kept = own + (1 - own) * generator.uniform(-0.5, 0.5, classes)
    rest *= ((1 - kept) / rest.sum(1))[:, None]
    np.fill_diagonal(rest, kept)
    return rest


def _shares(classes: int, present: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(classes)[:present]
    shares = np.zeros(classes)
    shares[chosen] = generator.dirichlet(np.ones(present))
    return shares


def _matrix(confidence: Array) -> Array:
    return np.eye(len(confidence)) - confidence.T


def _solve(confidence: Array, signal: Array) -> simplex.Shares:
    return label_shares(torch.from_numpy(confidence), torch.from_numpy(signal))


@given(
    classes=st.integers(2, 40),
    own=st.floats(0.02, 0.995),
    part=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=80)
def test_consistent_shares_come_back_exactly_absent_classes_included(
    classes: int, own: float, part: float, seed: int
) -> None:
    confidence = _confidence(classes, own, seed)
    shares = _shares(classes, 1 + round(part * (classes - 1)), seed)
    found = _solve(confidence, _matrix(confidence) @ shares)
    assert found.status is Status.SOLVED
    assert float(found.shares.sum()) == pytest.approx(1, abs=1e-12)
    assert (found.shares >= 0).all()
    assert np.abs(found.shares.numpy() - shares).max() < 1e-8
    assert found.residual < 1e-6


@given(smoothing=st.floats(0.0, 0.5), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_label_smoothing_is_taken_out_exactly(smoothing: float, seed: int) -> None:
    confidence, shares = _confidence(8, 0.4, seed), _shares(8, 5, seed)
    targets = (1 - smoothing) * shares + smoothing / 8
    signal = torch.from_numpy(targets - confidence.T @ shares)
    found = label_shares(torch.from_numpy(confidence), signal, smoothing)
    assert np.abs(found.shares.numpy() - shares).max() < 1e-7


def test_a_wrong_scale_moves_the_answer_and_a_rate_too_small_leaves_a_residual() -> None:
    """η is not in Δb alone: half the rate doubles u, which then nothing on the simplex explains."""
    confidence, shares = _confidence(10, 0.3, 1), _shares(10, 4, 1)
    signal = _matrix(confidence) @ shares
    assert _solve(confidence, 2 * signal).residual > 0.1
    assert _solve(confidence, 0.5 * signal).residual < 1e-6


def _by_active_sets(matrix: Array, signal: Array) -> tuple[float, Array]:
    """The optimum by trying every set of present classes."""
    classes, best = len(signal), (np.inf, np.empty(0))
    for count in range(1, classes + 1):
        for chosen in map(list, itertools.combinations(range(classes), count)):
            part = matrix[:, chosen]
            border = np.ones((count, 1))
            system = np.block([[part.T @ part, border], [border.T, np.zeros((1, 1))]])
            solved = np.linalg.lstsq(system, np.append(part.T @ signal, 1.0), rcond=None)[0][:-1]
            if (solved < -1e-12).any():
                continue
            shares = np.zeros(classes)
            shares[chosen] = solved
            value = float(np.linalg.norm(matrix @ shares - signal))
            if value < best[0]:
                best = (value, shares)
    return best


@given(own=st.floats(0.2, 0.99), noise=st.floats(0.05, 5.0), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=25)
def test_inconsistent_updates_get_the_optimum_that_all_active_sets_give(
    own: float, noise: float, seed: int
) -> None:
    confidence, shares = _confidence(6, own, seed), _shares(6, 4, seed)
    matrix = _matrix(confidence)
    signal = matrix @ shares
    error = np.random.default_rng(seed).standard_normal(6)
    signal = signal + noise * np.linalg.norm(signal) * (error - error.mean()) / 6
    value, best = _by_active_sets(matrix, signal)
    found = _solve(confidence, signal)
    assert found.residual * np.linalg.norm(signal) == pytest.approx(value, rel=1e-6, abs=1e-12)
    assert np.abs(found.shares.numpy() - best).max() < 1e-5


def test_slsqp_does_not_find_anything_better() -> None:
    confidence = _confidence(8, 0.6, 3)
    matrix = _matrix(confidence)
    signal = np.random.default_rng(3).standard_normal(8) / 10
    reference = minimize(
        lambda z: float(((matrix @ z - signal) ** 2).sum()),
        np.full(8, 1 / 8),
        jac=lambda z: 2 * matrix.T @ (matrix @ z - signal),
        bounds=[(0, 1)] * 8,
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.abs(_solve(confidence, signal).shares.numpy() - reference.x).max() < 1e-4


def _distance_to_optimum(matrix: Array, signal: Array, shares: Array) -> float:
    """How far any optimum can be in Euclidean length, from strong convexity on the plane Σz = 0.

    With g the gradient of ½‖Az - u‖², z the point and z* an optimum, gᵀ(z - z*) ≥ σ²‖z - z*‖²,
    and gᵀ(z - z*) ≤ Σ_j (g_j - min g) z_j: the duality gap of the simplex.
    """
    gradient = matrix.T @ (matrix @ shares - signal)
    gap = float((gradient - gradient.min()) @ shares)
    plane = np.eye(len(shares)) - 1 / len(shares)
    smallest = np.linalg.svd(matrix @ plane, compute_uv=False)[-2]
    return float(np.sqrt(max(gap, 0.0)) / smallest)


@pytest.mark.parametrize("own", [0.6, 0.99, 0.9999])
@pytest.mark.parametrize("noise", [0.05, 0.5, 3.0])
def test_a_sharply_trained_model_with_256_classes_is_solved_to_half_a_label(
    own: float, noise: float
) -> None:
    """First-order and interior-point solvers at default tolerance miss by tens of labels here."""
    total = 256
    confidence, shares = _confidence(256, own, 5), _shares(256, 60, 5)
    matrix = _matrix(confidence)
    signal = matrix @ shares
    error = np.random.default_rng(7).standard_normal(256)
    signal = signal + noise * np.linalg.norm(signal) * (error - error.mean()) / 16
    found = _solve(confidence, signal)
    assert found.status is Status.SOLVED
    assert total * _distance_to_optimum(matrix, signal, found.shares.numpy()) < 0.5


def test_the_transpose_that_the_print_gives_is_another_answer_on_a_trained_model() -> None:
    confidence, shares = _confidence(10, 0.7, 2), _shares(10, 5, 2)
    signal = _matrix(confidence) @ shares
    right, printed = (
        _solve(confidence, signal),
        label_shares(torch.from_numpy(confidence).T, torch.from_numpy(signal)),
    )
    assert np.abs(right.shares.numpy() - shares).max() < 1e-8
    assert np.abs(printed.shares.numpy() - shares).max() > 0.01
    assert torch.allclose(
        coefficients(torch.from_numpy(confidence)), torch.from_numpy(_matrix(confidence))
    )


@pytest.mark.parametrize(
    "problem", [RuntimeError("too many iterations"), ValueError("NaN"), np.linalg.LinAlgError("no")]
)
def test_a_solver_that_gives_up_is_a_status(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise problem

    monkeypatch.setattr(simplex, "nnls", fail)
    found = _solve(_confidence(5, 0.5, 0), np.zeros(5))
    assert found.status is Status.UNSOLVED
    assert not found.status.ok
    assert torch.equal(found.shares, torch.full((5,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize("signal", [np.zeros(4), np.array([0.1, -0.1, 0.0, 0.0])])
def test_a_model_that_is_never_in_doubt_tells_nothing(signal: Array) -> None:
    """S = I makes A zero: no shares follow, and none may be invented."""
    found = _solve(np.eye(4), signal)
    assert found.status is Status.UNSOLVED
    assert torch.isfinite(found.shares).all()
    assert found.condition == float("inf")


def test_confidence_that_is_not_finite_is_a_status_not_a_crash() -> None:
    found = _solve(np.full((4, 4), np.nan), np.zeros(4))
    assert found.status is Status.UNSOLVED
    assert torch.isfinite(found.shares).all()


def test_condition_is_that_of_changes_which_keep_the_sum() -> None:
    """Where every class is confused alike, A is a multiple of the identity on Σz = 0."""
    for own in (0.1, 0.9):
        confidence = np.full((10, 10), (1 - own) / 9)
        np.fill_diagonal(confidence, own)
        assert _solve(confidence, np.ones(10)).condition == pytest.approx(1, abs=1e-9)
    uneven = _confidence(10, 0.9, 1)
    uneven[0] = 0.1
    assert _solve(uneven, np.ones(10)).condition > 5


def test_an_update_of_zero_has_no_relative_residual() -> None:
    assert _solve(_confidence(3, 0.5, 0), np.zeros(3)).residual == float("inf")
