"""Several rounds of one client: by hand, against brute force, and by drawing them many times."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.intervals import share_intervals
from rlu_cli.numerics.pooling import Pooled, RoundShares, pool

SHARES = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
LABELS = 400


def _plane_noise(scale: float, seed: int) -> Tensor:
    """A root (4, 4) of a covariance on the plane Σ = 0."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64) * scale
    return root - root.mean(0)


OWN, SHARED = _plane_noise(0.01, 1), _plane_noise(0.01, 2)


def _client(
    generator: torch.Generator,
    rounds: int,
    *,
    shared_root: Tensor | None = None,
    drawn: float | None = LABELS,
    shares: list[Tensor] | None = None,
) -> list[RoundShares]:
    """Rounds of one client as the model of `pool` has them.

    shared_root  root (4, 4) of the covariance that all rounds share
    """

    def normal() -> Tensor:
        return torch.randn(4, generator=generator, dtype=torch.float64)

    nothing = torch.zeros(4, dtype=torch.float64)
    shift = nothing if shared_root is None else shared_root @ normal()
    alike = None if shared_root is None else shared_root @ shared_root.T
    whole = OWN @ OWN.T if alike is None else OWN @ OWN.T + alike
    made = []
    for number in range(rounds):
        base = SHARES if shares is None else shares[number]
        if drawn is not None:
            picked = torch.multinomial(base, int(drawn), replacement=True, generator=generator)
            base = torch.bincount(picked, minlength=4).double() / drawn
        made.append(RoundShares(base + OWN @ normal() + shift, whole, alike, drawn))
    return made


def _width(pooled: Pooled) -> float:
    assert pooled.covariance is not None
    return float(pooled.covariance.diagonal().sqrt().mean())


def test_two_rounds_by_hand() -> None:
    """Two classes, z of 0.5 ± 0.03 and 0.6 ± 0.06, all their own: (4 · 0.5 + 0.6) / 5."""
    one = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    first = RoundShares(torch.tensor([0.5, 0.5]).double(), 0.03**2 * one)
    second = RoundShares(torch.tensor([0.6, 0.4]).double(), 0.06**2 * one)
    pooled = pool([first, second])
    assert pooled.shares.tolist() == pytest.approx([0.52, 0.48], abs=1e-6)
    assert pooled.agreement is not None
    # z differs by 0.1 with a variance of 0.03² + 0.06²
    assert pooled.agreement.chi_square == pytest.approx(0.01 / 0.0045, rel=0.01)
    assert pooled.agreement.degrees == 1
    assert pooled.agreement.p_value == pytest.approx(0.136, abs=0.002)
    assert pooled.covariance is not None
    alone = 1 / (1 / 0.03**2 + 1 / 0.06**2)
    variance_inflation = alone * 0.01 / 0.0045
    assert float(pooled.covariance[0, 0]) == pytest.approx(variance_inflation, rel=0.02)


def test_the_noise_of_drawing_is_multinomial() -> None:
    """Rounds read without error: the interval is that of drawing R·K labels."""
    nothing = torch.zeros(4, 4, dtype=torch.float64)
    pooled = pool([RoundShares(SHARES, nothing, None, 100.0)] * 4)
    assert pooled.covariance is not None
    expected = torch.diag(SHARES) - torch.outer(SHARES, SHARES)
    assert torch.allclose(pooled.covariance * 400, expected, atol=1e-6)
    assert pooled.agreement is not None
    assert pooled.agreement.p_value == 1.0


def test_full_passes_over_the_same_images_draw_nothing_and_share_their_errors() -> None:
    whole = OWN @ OWN.T
    rounds = [RoundShares(SHARES, whole, None, 200.0, 200.0)] * 9
    pooled = pool(rounds)
    assert pooled.covariance is not None
    assert torch.allclose(pooled.covariance, whole, rtol=0.01, atol=1e-8)


def test_part_of_the_same_images_is_drawn_without_replacement() -> None:
    """150 of 200 images: the variance of drawing is 50/199 of the plain one."""
    nothing = torch.zeros(4, 4, dtype=torch.float64)
    pooled = pool([RoundShares(SHARES, nothing, None, 150.0, 200.0)] * 2)
    assert pooled.covariance is not None
    expected = float(SHARES[0] * (1 - SHARES[0])) / 150 * 50 / 199 / 2
    assert float(pooled.covariance[0, 0]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("root", [None, SHARED], ids=["own errors", "a shared error"])
@pytest.mark.parametrize("rounds", [2, 8])
def test_intervals_hold_as_often_as_they_say(rounds: int, root: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    held, clients = torch.zeros(4), 600
    for _ in range(clients):
        pooled = pool(_client(generator, rounds, shared_root=root))
        assert pooled.covariance is not None
        low, high = share_intervals(pooled.shares, pooled.covariance, 0.9)
        held += ((low <= SHARES) & (high >= SHARES)).float()
    # Widening where rounds differ by chance can only make them hold more often.
    assert 0.87 <= float(held.mean()) / clients <= 0.95


def test_the_interval_shrinks_with_the_root_of_the_rounds() -> None:
    rounds = [RoundShares(SHARES, OWN @ OWN.T, None, float(LABELS))] * 64
    widths = [_width(pool(rounds[:count])) for count in (1, 4, 16, 64)]
    for wide, narrow in pairwise(widths):
        assert wide / narrow == pytest.approx(2, rel=0.01)


def test_it_stops_at_the_shared_error() -> None:
    alike = SHARED @ SHARED.T
    rounds = [RoundShares(SHARES, OWN @ OWN.T + alike, alike, float(LABELS))] * 400
    floor = float(alike.diagonal().sqrt().mean())
    widths = [_width(pool(rounds[:count])) for count in (1, 4, 16, 400)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > floor
    assert widths[-1] == pytest.approx(floor, rel=0.05)
    assert widths[0] / widths[-1] < math.sqrt(400) / 2


def test_chi_square_is_about_its_degrees_of_freedom_and_fires_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(3)
    found = [pool(_client(generator, 4, shared_root=SHARED)).agreement for _ in range(400)]
    ratios = torch.tensor([one.chi_square / one.degrees for one in found if one is not None])
    low = sum(one.p_value < 0.05 for one in found if one is not None)
    assert float(ratios.mean()) == pytest.approx(1, abs=0.06)
    assert 8 <= low <= 36  # 5 % of 400


def test_labels_that_change_between_rounds_are_noticed_and_widen_the_interval() -> None:
    generator = torch.Generator().manual_seed(4)
    moved = torch.tensor([0.2, 0.3, 0.2, 0.3], dtype=torch.float64)
    changed = pool(_client(generator, 4, shares=[SHARES, SHARES, moved, moved]))
    same = pool(_client(generator, 4))
    assert changed.agreement is not None
    assert same.agreement is not None
    assert changed.agreement.p_value < 1e-6
    assert changed.agreement.variance_inflation > 3
    assert same.agreement.p_value > 0.01
    assert _width(changed) > 1.5 * _width(same)


def test_a_round_that_knows_more_counts_more() -> None:
    sure = RoundShares(SHARES, 1e-4 * OWN @ OWN.T, None, float(LABELS))
    vague = RoundShares(SHARES.flip(0), 1e4 * OWN @ OWN.T, None, float(LABELS))
    assert torch.allclose(pool([sure, vague]).shares, SHARES, atol=1e-2)


def test_shares_stay_on_the_simplex() -> None:
    generator = torch.Generator().manual_seed(5)
    shares = torch.tensor([0.99, 0.01, 0.0, 0.0], dtype=torch.float64)
    for _ in range(50):
        pooled = pool(_client(generator, 3, shares=[shares] * 3, drawn=50.0))
        assert float(pooled.shares.sum()) == pytest.approx(1)
        assert float(pooled.shares.min()) >= 0


def test_rounds_that_do_not_know_their_error_give_the_mean_by_their_labels() -> None:
    first = RoundShares(torch.tensor([1.0, 0.0]).double(), None, None, 300.0)
    second = RoundShares(torch.tensor([0.0, 1.0]).double(), torch.eye(2).double(), None, 100.0)
    pooled = pool([first, second])
    assert pooled.shares.tolist() == pytest.approx([0.75, 0.25])
    assert pooled.covariance is None
    assert pooled.agreement is None
    unknown = pool([RoundShares(first.shares), second])
    assert unknown.shares.tolist() == pytest.approx([0.5, 0.5])


def test_one_class_in_every_round() -> None:
    alone = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    noise = 1e-4 * (torch.eye(3).double() - 1 / 3)
    pooled = pool([RoundShares(alone, noise, None, 10.0)] * 3)
    assert pooled.shares.tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert pooled.agreement is not None
    assert (pooled.agreement.degrees, pooled.agreement.variance_inflation) == (0, 1.0)


def test_shares_below_zero_widen_but_are_no_change_of_labels() -> None:
    """Rounds that a model's misfit pushes below 0 by different amounts, all bounded to the same."""
    noise = 1e-6 * (torch.eye(4).double() - 1 / 4)
    truth = torch.tensor([0.6, 0.4, 0.0, 0.0], dtype=torch.float64)
    rounds = []
    for push in (0.01, 0.03, -0.01, 0.02):
        free = truth + push * torch.tensor([0.5, 0.5, -1.0, 0.0], dtype=torch.float64)
        rounds.append(RoundShares(free, noise, None, None, None, truth))
    agreement = pool(rounds).agreement
    assert agreement is not None
    assert agreement.p_value == 1.0
    assert agreement.variance_inflation > 10


def test_bounded_shares_of_an_absent_class_average_to_too_much_unconstrained_ones_do_not() -> None:
    generator = torch.Generator().manual_seed(6)
    truth = torch.tensor([0.6, 0.4, 0.0, 0.0], dtype=torch.float64)
    sides = {"free": 0, "bounded": 0}
    for _ in range(200):
        free = _client(generator, 30, drawn=None, shares=[truth] * 30)
        cut = [
            RoundShares(r.shares.clamp_min(0) / r.shares.clamp_min(0).sum(), r.covariance)
            for r in free
        ]
        for name, rounds in (("free", free), ("bounded", cut)):
            pooled = pool(rounds)
            assert pooled.covariance is not None
            sides[name] += int(share_intervals(pooled.shares, pooled.covariance, 0.9)[0][2] > 0)
    assert sides["free"] <= 20  # at most 5 % by noise alone, and the bound at 0 helps
    assert sides["bounded"] > 100
