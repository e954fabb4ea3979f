"""The posterior of the shares: against sampling, and what must hold whatever the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import gammaln

from rlu_cli.numerics.posterior import Posterior, concentrations_in, posterior, posterior_mean

CENTRE = torch.tensor([0.5, 0.3, 0.15, 0.06, -0.01], dtype=torch.float64)

Array = NDArray[np.float64]


def on_plane(classes: int, size: float, seed: int) -> torch.Tensor:
    """A covariance of correlated errors that sum to 0."""
    generator = torch.Generator().manual_seed(seed)
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    root = centring @ torch.randn(classes, classes, generator=generator, dtype=torch.float64)
    return root @ root.T * size**2


def even_errors(classes: int, size: float) -> torch.Tensor:
    """A covariance of errors that are alike for all classes and sum to 0."""
    return (torch.eye(classes, dtype=torch.float64) - 1 / classes) * size**2


def seen(shares: Array, covariance: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """The shares with an error of that covariance."""
    values, vectors = np.linalg.eigh(covariance.numpy())
    root = vectors * np.sqrt(np.maximum(values, 0))
    noisy = shares + root @ rng.standard_normal(len(shares))
    return torch.from_numpy(noisy - (noisy.sum() - 1) / len(noisy))


def labels_of(rng: np.random.Generator, alpha: float, classes: int, total: int) -> Array:
    """Counts of a client of concentration α."""
    return rng.multinomial(total, rng.dirichlet([alpha] * classes)).astype(float)


def found_of(centre: torch.Tensor, covariance: torch.Tensor, *given: int) -> Posterior:
    found = posterior(centre, covariance, *given)
    assert found is not None
    return found


def iacc(one: torch.Tensor, other: torch.Tensor | Array) -> float:
    return 1 - float((one - torch.as_tensor(other)).abs().sum()) / 2


@dataclass(frozen=True)
class Sampled:
    """Counts of Dirichlet-multinomial clients, each with the likelihood of `centre` as weight."""

    shares: Array
    weights: Array
    evidence: float

    @property
    def mean(self) -> Array:
        return np.asarray(self.weights @ self.shares)

    def inside(self, bounds: tuple[torch.Tensor, torch.Tensor], half: float) -> Array:
        """Probability of shares between the bounds, which may lie half a count further out."""
        low, high = (bound.numpy() for bound in bounds)
        within = (low - half <= self.shares) & (self.shares <= high + half)
        return np.asarray(self.weights @ within)


def sampled(
    centre: torch.Tensor, covariance: torch.Tensor, alphas: tuple[float, ...], total: int
) -> Sampled:
    """By drawing clients of every concentration from the prior."""
    rng = np.random.default_rng(0)
    classes, each = len(centre), 150_000
    plane = np.linalg.qr((np.eye(classes) - 1 / classes)[:, 1:])[0]
    inside = plane.T @ covariance.numpy() @ plane
    inverse = np.linalg.inv(inside)
    parts = []
    for alpha in alphas:
        drawn = rng.dirichlet([alpha] * classes, each)
        parts.append(rng.multinomial(total, drawn) / total)
    shares = np.concatenate(parts)
    away = (shares - centre.numpy()) @ plane
    logs = -((away @ inverse) * away).sum(1) / 2
    weights = np.exp(logs)
    size = np.linalg.slogdet(inside)[1] + (classes - 1) * math.log(2 * math.pi)
    return Sampled(shares, weights / weights.sum(), math.log(weights.mean()) - float(size) / 2)


@pytest.mark.parametrize(
    ("alpha", "size"),
    [(0.1, 0.05), (0.5, 0.05), (2.0, 0.05), (30.0, 0.05), (0.1, 0.2), (2.0, 0.2), (30.0, 0.2)],
)
def test_mean_and_distribution_are_those_of_samples(alpha: float, size: float) -> None:
    covariance = on_plane(5, size / 2, 1)
    found = posterior(CENTRE, covariance, 60, concentrations=(alpha,))
    assert found is not None
    truth = sampled(CENTRE, covariance, (alpha,), 60)
    assert found.mean.numpy() == pytest.approx(truth.mean, abs=0.035)
    for confidence in (0.5, 0.9):
        inside = truth.inside(found.interval(confidence), 0.5 / 60)
        assert inside.mean() > confidence - 0.05
    best = found.best_point()
    expected = truth.weights @ np.minimum(truth.shares, best.numpy()).sum(1)
    assert found.expected_iacc(best, 0.9)[0] == pytest.approx(expected, abs=0.03)
    floor = truth.weights @ np.minimum(truth.shares, 0.2).sum(1)
    assert found.expected_floor() == pytest.approx(floor, abs=0.03)


def test_the_evidence_is_that_of_samples_up_to_one_constant() -> None:
    """Over concentrations, sizes of the error and estimates, of the same N and K."""
    differences = []
    for alpha in (0.2, 1.0, 10.0):
        for size in (0.03, 0.1):
            for centre in (CENTRE, CENTRE * 0 + 0.2):
                covariance = on_plane(5, size, 1)
                found = posterior(centre, covariance, 60, concentrations=(alpha,))
                assert found is not None
                evidence = sampled(centre, covariance, (alpha,), 60).evidence
                differences.append(found.evidence - evidence)
    assert np.ptp(differences) < 0.6
    assert np.std(differences) < 0.15


def test_the_evidence_of_several_concentrations_is_their_mean() -> None:
    covariance = on_plane(5, 0.05, 0)
    alphas = (0.1, 0.3, 1.0)
    each = [posterior(CENTRE, covariance, 60, concentrations=(alpha,)) for alpha in alphas]
    logs = [one.evidence for one in each if one is not None]
    together = posterior(CENTRE, covariance, 60, concentrations=alphas)
    assert together is not None
    assert together.evidence == pytest.approx(math.log(np.exp(logs).mean()), abs=1e-6)


def test_a_concentration_that_cannot_foretell_the_estimate_is_left_out() -> None:
    """Of an estimate far from even shares, even clients are not averaged in."""
    covariance = on_plane(5, 0.05, 0)
    alone = posterior(CENTRE, covariance, 60, concentrations=(0.3,))
    both = posterior(CENTRE, covariance, 60, concentrations=(0.3, 1000.0))
    assert alone is not None
    assert both is not None
    assert both.alpha == pytest.approx(0.3)
    torch.testing.assert_close(both.quantiles, alone.quantiles)


@pytest.mark.parametrize(
    ("ends", "expected"), [((0.5, 0.5), (0.5,)), ((0.1, 1.0), (0.1, 0.2154, 0.4642, 1.0))]
)
def test_concentrations_of_a_range_are_even_in_their_logarithm(
    ends: tuple[float, float], expected: tuple[float, ...]
) -> None:
    assert concentrations_in(*ends) == pytest.approx(expected, rel=1e-3)
    assert len(concentrations_in(0.001, 1e6)) == 11


def test_of_two_classes_the_evidence_is_exact() -> None:
    """A single count: the sum over it can be written down."""
    total, alpha, size = 40, 0.5, 0.08
    centre = torch.tensor([0.7, 0.3], dtype=torch.float64)
    counts = np.arange(total + 1)
    prior = np.exp(
        gammaln(counts + alpha) - gammaln(counts + 1)
        + gammaln(total - counts + alpha) - gammaln(total - counts + 1)
    )  # fmt: skip
    # Of errors (e, -e) with covariance size² (I - 1/2): the variance of each is size²/2.
    weights = prior * np.exp(-(((counts / total - 0.7) / size) ** 2))
    mean = weights @ counts / weights.sum() / total
    found = posterior(centre, even_errors(2, size), total, concentrations=(alpha,))
    assert found is not None
    assert float(found.mean[0]) == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize(("alpha", "size"), [(0.1, 0.04), (0.5, 0.01), (2.0, 0.04), (100.0, 0.02)])
def test_the_intervals_cover_and_the_expected_iacc_is_what_is_reached(
    alpha: float, size: float
) -> None:
    rng = np.random.default_rng(int(alpha * 10 + size * 1000))
    classes, total, covered, reached, expected, inside = 20, 256, [], [], [], []
    for seed in range(12):
        shares = labels_of(rng, alpha, classes, total) / total
        covariance = on_plane(classes, size / classes**0.5, seed)
        found = found_of(seen(shares, covariance, rng), covariance, total)
        low, high = found.interval(0.9)
        half = 0.5 / total  # the quantiles lie between the whole counts
        within = (low.numpy() - half <= shares) & (shares <= high.numpy() + half)
        covered.append(within.mean())
        best = found.best_point()
        reached.append(iacc(best, shares))
        mean, worst, most = found.expected_iacc(best, 0.9)
        expected.append(mean)
        inside.append(worst <= reached[-1] <= most)
    assert np.mean(covered) > 0.86
    assert np.mean(expected) == pytest.approx(np.mean(reached), abs=0.02)
    assert np.mean(inside) > 0.7


def test_many_classes_with_correlated_errors_of_a_few_counts() -> None:
    """K = 640: the errors are one to four labels, common to whole groups of classes."""
    rng = np.random.default_rng(2)
    total, classes, covered, gains, gaps = 640, 60, [], [], []
    for seed in range(4):
        shares = labels_of(rng, 0.2, classes, total) / total
        groups = on_plane(classes, 2.0 / total / classes**0.5, seed)
        covariance = groups + even_errors(classes, 1.0 / total)
        centre = seen(shares, covariance, rng)
        found = found_of(centre, covariance, total)
        low, high = found.interval(0.9)
        half = 0.5 / total
        within = (low.numpy() - half <= shares) & (shares <= high.numpy() + half)
        covered.append(within.mean())
        bounded = centre.clamp_min(0) / centre.clamp_min(0).sum()
        best = found.best_point()
        gains.append(iacc(best, shares) - iacc(bounded, shares))
        gaps.append(found.expected_iacc(best, 0.9)[0] - iacc(best, shares))
    assert np.mean(covered) > 0.85
    assert np.mean(gains) > 0.01
    assert abs(np.mean(gaps)) < 0.015


def test_a_client_of_all_classes_seen_vaguely_is_near_even() -> None:
    rng = np.random.default_rng(3)
    for seed in range(5):
        shares = labels_of(rng, 100.0, 50, 640) / 640
        covariance = even_errors(50, 0.02)  # as large as the shares
        found = found_of(seen(shares, covariance, rng), covariance, 640)
        assert iacc(found.best_point(), np.full(50, 0.02)) > 0.75, seed
        assert found.alpha > 1, seed


@pytest.mark.parametrize("total", [1, 4, 16])
def test_few_labels(total: int) -> None:
    rng = np.random.default_rng(total)
    gaps = []
    for _ in range(6):
        shares = labels_of(rng, 0.5, 10, total) / total
        covariance = even_errors(10, 0.03)
        found = found_of(seen(shares, covariance, rng), covariance, total)
        best = found.best_point()
        assert float(best.sum()) == pytest.approx(1)
        gaps.append(found.expected_iacc(best, 0.9)[0] - iacc(best, shares))
        assert bool((found.quantiles >= 0).all())
        assert bool((found.quantiles <= 1).all())
    assert abs(np.mean(gaps)) < 0.05


def test_an_unknown_number_of_labels_is_as_good_as_many() -> None:
    covariance = on_plane(5, 0.05, 0)
    unknown, many = found_of(CENTRE, covariance), found_of(CENTRE, covariance, 5000)
    assert unknown.mean.numpy() == pytest.approx(many.mean.numpy(), abs=0.01)
    best = unknown.best_point()
    assert best.numpy() == pytest.approx(many.best_point().numpy(), abs=0.02)


def test_the_best_point_is_better_than_any_near_it() -> None:
    rng = np.random.default_rng(4)
    for seed, size in enumerate((0.01, 0.03, 0.1)):
        shares = labels_of(rng, 0.3, 12, 200) / 200
        covariance = on_plane(12, size / 12**0.5, seed)
        found = found_of(seen(shares, covariance, rng), covariance, 200)
        best = found.best_point()
        assert float(best.sum()) == pytest.approx(1, abs=1e-9)
        assert bool((best >= 0).all())
        quantiles = found.quantiles

        def expected(point: torch.Tensor, quantiles: torch.Tensor = quantiles) -> float:
            return 1 - float((quantiles - point[:, None]).abs().mean(1).sum()) / 2

        reached = expected(best)
        for width in (0.001, 0.01, 0.1):
            for _ in range(60):
                moved = best + torch.from_numpy(rng.normal(0, width, 12) * rng.integers(0, 2, 12))
                moved = moved.clamp_min(0) / moved.clamp_min(0).sum()
                assert expected(moved) <= reached + 1e-4
        assert reached >= expected(found.mean) - 1e-4


def test_a_widened_posterior_is_wider_about_the_same_point() -> None:
    found = found_of(CENTRE, on_plane(5, 0.02, 0), 200)
    variance = torch.tensor([4e-3, 4e-3, 1e-3, 1e-3, 0.0], dtype=torch.float64)
    wider = found.widened(variance)
    (low, high), (lower, higher) = found.interval(0.9), wider.interval(0.9)
    assert bool((higher - lower >= high - low - 1e-12).all())
    assert float((higher - lower)[0]) > 1.5 * float((high - low)[0])
    assert torch.equal(wider.quantiles[4], found.quantiles[4])
    assert torch.allclose(wider.draws.sum(1), torch.ones(len(wider.draws), dtype=torch.float64))
    assert bool((wider.quantiles.diff(dim=1) >= 0).all())
    best = found.best_point()
    assert wider.best_point().numpy() == pytest.approx(best.numpy(), abs=0.05)
    assert wider.expected_iacc(best, 0.9)[0] < found.expected_iacc(best, 0.9)[0]
    same = found.widened(torch.zeros(5, dtype=torch.float64))
    assert torch.allclose(same.quantiles, found.quantiles)


def test_an_uncertain_scale_of_the_errors_leaves_longer_tails() -> None:
    covariance = even_errors(5, 0.02)
    centre = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.1], dtype=torch.float64)
    sure = posterior(centre, covariance, 5000)
    unsure = posterior(centre, covariance, 5000, degrees=4)
    assert sure is not None
    assert unsure is not None
    (low, high), (lower, higher) = sure.interval(0.99), unsure.interval(0.99)
    assert bool((higher - lower > 1.1 * (high - low)).all())


def test_the_draws_have_the_marginals_and_sum_to_one() -> None:
    found = found_of(CENTRE, on_plane(5, 0.05, 0), 300)
    assert torch.allclose(found.draws.sum(1), torch.ones(len(found.draws), dtype=torch.float64))
    assert bool((found.draws >= 0).all())
    assert found.draws.mean(0).numpy() == pytest.approx(found.mean.numpy(), abs=0.01)
    again = found_of(CENTRE, on_plane(5, 0.05, 0), 300)
    assert torch.equal(again.draws, found.draws)


def test_a_sure_estimate_stays_as_it_is() -> None:
    inside = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
    for total in (None, 20, 100):  # the counts are whole
        found = posterior(inside, on_plane(4, 1e-5, 0), total)
        assert found is not None
        assert found.mean.numpy() == pytest.approx(inside.numpy(), abs=1e-4)
        assert found.best_point().numpy() == pytest.approx(inside.numpy(), abs=1e-3)


@pytest.mark.parametrize("concentrations", [(0.5,), (0.05, 0.5, 5.0)])
@pytest.mark.parametrize("total", [1, 16, 64])
def test_counts_that_are_known_have_no_spread(
    total: int, concentrations: tuple[float, ...]
) -> None:
    """Marginals were once read between the counts: a sure count was spread to its neighbours."""
    rng = np.random.default_rng(0)
    shares = torch.from_numpy(labels_of(rng, 0.2, 10, total) / total)
    covariance = even_errors(10, 0.02 / total)
    found = posterior(shares, covariance, total, concentrations=concentrations)
    assert found is not None
    assert found.expected_iacc(shares, 0.9) == pytest.approx((1, 1, 1))
    low, high = found.interval(0.9)
    assert torch.allclose(low, shares)
    assert torch.allclose(high, shares)


def test_an_estimate_that_says_nothing_leaves_even_shares() -> None:
    centring = torch.eye(4, dtype=torch.float64) - 0.25
    centre = torch.tensor([0.9, 0.1, 0.0, 0.0], dtype=torch.float64)
    found = posterior_mean(centre, centring * 1e4)
    assert found is not None
    assert found.numpy() == pytest.approx(np.full(4, 0.25), abs=0.02)


def test_a_class_below_zero_keeps_little() -> None:
    centre = torch.tensor([0.8, 0.3, -0.1], dtype=torch.float64)
    found = posterior_mean(centre, even_errors(3, 1e-3**0.5))
    assert found is not None
    assert 0 < found[2] < 0.02


@settings(deadline=None, max_examples=8)
@given(
    st.integers(2, 30),
    st.floats(1e-6, 10),
    st.integers(0, 1000),
    st.sampled_from([None, 3, 16, 500]),
)
def test_shares_are_shares_and_follow_the_order_of_classes(
    classes: int, size: float, seed: int, total: int | None
) -> None:
    rng = np.random.default_rng(seed)
    centre = torch.from_numpy(rng.dirichlet([0.3] * classes) + rng.normal(0, size, classes))
    centre = centre - (centre.sum() - 1) / classes
    covariance = on_plane(classes, size, seed)
    found = posterior(centre, covariance, total)
    assert found is not None
    best = found.best_point()
    for one in (found.mean, best):
        assert bool((one >= 0).all())
        assert float(one.sum()) == pytest.approx(1)
    order = torch.from_numpy(rng.permutation(classes))
    turned = posterior(centre[order], covariance[order][:, order], total)
    assert turned is not None
    # Of errors as large as the shares themselves the propagation swings about its fixed point.
    near = 1e-4 if size < 0.3 else 0.01
    assert turned.mean.numpy() == pytest.approx(found.mean[order].numpy(), abs=near)
    assert turned.best_point().numpy() == pytest.approx(best[order].numpy(), abs=3 * near)


def test_numbers_that_are_none_give_no_answer() -> None:
    covariance = on_plane(5, 0.1, 0)
    assert posterior_mean(CENTRE * float("nan"), covariance) is None
    assert posterior_mean(CENTRE, covariance * float("inf")) is None


@pytest.mark.parametrize("concentration", [0.1, 5.0])
def test_the_concentration_follows_from_the_estimate(concentration: float) -> None:
    """With many classes clients of few and of many classes are both estimated well, on average."""
    spread = even_errors(100, 0.01)
    losses, alphas = torch.zeros(2, dtype=torch.float64), []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shares = torch.from_numpy(rng.dirichlet([concentration] * 100))
        noise = rng.standard_normal(100)  # on the plane Σ = 0, whatever the linear algebra library
        noisy = shares + torch.from_numpy(noise - noise.mean()) * 0.01
        found = found_of(noisy, spread)
        alphas.append(found.alpha)
        bounded = noisy.clamp_min(0) / noisy.clamp_min(0).sum()
        losses += torch.stack([(one - shares).abs().sum() / 2 for one in (found.mean, bounded)])
    assert losses[0] < 0.7 * losses[1]
    assert concentration / 4 < np.exp(np.log(alphas).mean()) < concentration * 4


def test_many_classes_are_handled() -> None:
    classes = 200
    rng = np.random.default_rng(0)
    shares = torch.from_numpy(rng.dirichlet([0.1] * classes))
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    found = posterior_mean(shares, centring * 1e-6)
    assert found is not None
    assert float((found - shares).abs().sum()) / 2 < 0.25


def test_numbers_that_are_not_finite_have_no_posterior() -> None:
    centring = torch.eye(3, dtype=torch.float64) - 1 / 3
    centre = torch.tensor([0.5, 0.5, float("nan")], dtype=torch.float64)
    assert posterior(centre, centring, 30) is None
    assert posterior(torch.full((3,), 1 / 3).double(), centring * float("inf"), 30) is None


def test_a_covariance_that_is_none_has_no_posterior() -> None:
    centre = torch.full((3,), 1 / 3, dtype=torch.float64)
    assert posterior(centre, -1e6 * torch.eye(3, dtype=torch.float64), 30) is None
