"""The mean over the simplex: against sampling, and what must hold whatever the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlu_cli.numerics.posterior import _propagate, posterior_mean

CENTRE = torch.tensor([0.5, 0.3, 0.15, 0.06, -0.01], dtype=torch.float64)


def on_plane(classes: int, size: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    root = centring @ torch.randn(classes, classes, generator=generator, dtype=torch.float64)
    return root @ root.T * size**2


def sampled(
    centre: torch.Tensor, covariance: torch.Tensor, concentration: float
) -> tuple[np.ndarray, float]:
    """Mean under a Dirichlet prior, and the logarithm of its evidence."""
    rng = np.random.default_rng(0)
    drawn = rng.multivariate_normal(centre.numpy(), covariance.numpy(), 400_000)
    kept = drawn[(drawn >= 0).all(1)]
    weights = np.prod(np.maximum(kept, 1e-12) ** (concentration - 1), 1)
    classes = len(centre)
    normaliser = math.lgamma(classes * concentration) - classes * math.lgamma(concentration)
    return weights @ kept / weights.sum(), math.log(weights.sum() / len(drawn)) + normaliser


@pytest.mark.parametrize("concentration", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_of_samples(concentration: float, seed: int) -> None:
    covariance = on_plane(5, 0.06, seed)
    found = _propagate(CENTRE.numpy(), covariance.numpy(), concentration)
    mean, evidence = sampled(CENTRE, covariance, concentration)
    assert found.mean == pytest.approx(mean, abs=0.01)
    assert found.evidence == pytest.approx(evidence, abs=0.15)


def test_a_sure_estimate_stays_as_it_is() -> None:
    inside = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
    found = posterior_mean(inside, on_plane(4, 1e-5, 0))
    assert found is not None
    assert found.numpy() == pytest.approx(inside.numpy(), abs=1e-4)


def test_an_estimate_that_says_nothing_leaves_even_shares() -> None:
    centring = torch.eye(4, dtype=torch.float64) - 0.25
    centre = torch.tensor([0.9, 0.1, 0.0, 0.0], dtype=torch.float64)
    found = posterior_mean(centre, centring * 1e4)
    assert found is not None
    assert found.numpy() == pytest.approx(np.full(4, 0.25), abs=0.02)


def test_a_class_below_zero_keeps_little() -> None:
    centre = torch.tensor([0.8, 0.3, -0.1], dtype=torch.float64)
    found = posterior_mean(centre, (torch.eye(3).double() - 1 / 3) * 1e-3)
    assert found is not None
    assert 0 < found[2] < 0.02


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.floats(1e-6, 10), st.integers(0, 1000))
def test_shares_are_shares_and_follow_the_order_of_classes(
    classes: int, size: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    centre = torch.from_numpy(rng.dirichlet([0.3] * classes) + rng.normal(0, size, classes))
    centre = centre - (centre.sum() - 1) / classes
    covariance = on_plane(classes, size, seed)
    found = posterior_mean(centre, covariance)
    assert found is not None
    assert bool((found >= 0).all())
    assert float(found.sum()) == pytest.approx(1)
    order = torch.from_numpy(rng.permutation(classes))
    turned = posterior_mean(centre[order], covariance[order][:, order])
    assert turned is not None
    # Of errors as large as the shares themselves the propagation swings about its fixed point.
    near = 1e-4 if size < 0.3 else 0.01
    assert turned.numpy() == pytest.approx(found[order].numpy(), abs=near)


def test_numbers_that_are_none_give_no_answer() -> None:
    covariance = on_plane(5, 0.1, 0)
    assert posterior_mean(CENTRE * float("nan"), covariance) is None
    assert posterior_mean(CENTRE, covariance * float("inf")) is None


@pytest.mark.parametrize("concentration", [0.1, 5.0])
def test_the_concentration_follows_from_the_estimate(concentration: float) -> None:
    """With many classes clients of few and of many classes are both estimated well, on average."""
    spread = (torch.eye(100).double() - 1 / 100) * 0.01**2
    losses = torch.zeros(2, dtype=torch.float64)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shares = torch.from_numpy(rng.dirichlet([concentration] * 100))
        noise = rng.standard_normal(100)  # on the plane Σ = 0, whatever the linear algebra library
        noisy = shares + torch.from_numpy(noise - noise.mean()) * 0.01
        found = posterior_mean(noisy, spread)
        assert found is not None
        bounded = noisy.clamp_min(0) / noisy.clamp_min(0).sum()
        losses += torch.stack([(one - shares).abs().sum() / 2 for one in (found, bounded)])
    assert losses[0] < 0.7 * losses[1]


def test_many_classes_are_handled() -> None:
    classes = 300
    rng = np.random.default_rng(0)
    shares = torch.from_numpy(rng.dirichlet([0.1] * classes))
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    found = posterior_mean(shares, centring * 1e-6)
    assert found is not None
    assert float((found - shares).abs().sum()) / 2 < 0.25
