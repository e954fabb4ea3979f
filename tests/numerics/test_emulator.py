"""The linear emulator on clients that are linear with Gaussian noise: every answer is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.emulator import EmulatorFit, emulate
from rlu_cli.types import Status

TRUTH = torch.tensor([0.4, 0.25, 0.2, 0.15], dtype=torch.float64)


@dataclass(frozen=True)
class World:
    """Virtual clients and the one under study: y = a + B z + noise, as `emulate` takes them."""

    shares: Tensor
    rows: Tensor
    observed: Tensor

    def answer(self, closeness: Tensor | None = None) -> EmulatorFit:
        even = torch.ones(len(self.shares), dtype=torch.float64)
        return emulate(
            self.shares, self.rows, self.observed, even if closeness is None else closeness
        )


def _normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _shares(count: int, classes: int, seed: int) -> Tensor:
    """Uniform on the simplex."""
    generator = torch.Generator().manual_seed(seed)
    drawn = -torch.rand(count, classes, generator=generator, dtype=torch.float64).log()
    return drawn / drawn.sum(1, keepdim=True)


def _world(
    clients: int = 80, rows: int = 12, noise: float = 0.1, seed: int = 0, truth: Tensor = TRUTH
) -> World:
    """The rows' noise is correlated: every row has some of its neighbour's."""
    start, slope = 3 * _normal(rows, seed=1), _normal(len(truth), rows, seed=2)
    neighbour = torch.ones(rows - 1, dtype=torch.float64).diag(1)
    mixing = noise * (torch.eye(rows, dtype=torch.float64) + 0.5 * neighbour)
    shares = _shares(clients, len(truth), 100 * seed + 4)
    disturbed = _normal(clients + 1, rows, seed=100 * seed + 5) @ mixing
    return World(
        shares,
        start + shares @ slope + disturbed[:-1],
        start + truth @ slope + disturbed[-1],
    )


@pytest.mark.parametrize(
    "truth", [TRUTH, torch.tensor([0, 0.9, 0.1, 0], dtype=torch.float64), TRUTH.new_tensor([0, 1])]
)
@pytest.mark.parametrize("rows", [3, 12, 300])
def test_without_noise_the_shares_are_exact(truth: Tensor, rows: int) -> None:
    """But for the ridge, a thousandth of the way to the mean virtual client."""
    found = _world(rows=rows, noise=0, truth=truth).answer()
    torch.testing.assert_close(found.shares, truth, rtol=0, atol=3e-3)
    assert found.status is Status.SOLVED
    assert found.reduced_chi_square < 3


def test_the_error_is_what_the_noise_lets_through() -> None:
    small, large = (
        torch.stack([_world(noise=noise, seed=s).answer().shares - TRUTH for s in range(40)])
        for noise in (0.01, 0.1)
    )
    assert float(small.abs().mean()) < 0.02
    assert 5 < float(large.abs().mean() / small.abs().mean()) < 15


@pytest.mark.parametrize(("clients", "rows"), [(80, 12), (400, 12), (80, 100)])
def test_the_covariance_is_that_of_many_clients(clients: int, rows: int) -> None:
    """Also with more rows than clients."""
    found = [_world(clients, rows, 0.1, seed).answer() for seed in range(200)]
    errors = torch.stack([f.shares - TRUTH for f in found])
    claimed = torch.stack([f.covariance for f in found]).mean(0)
    ratio = float(errors.square().mean(0).sum() / claimed.diagonal().sum())
    assert 0.6 < ratio < 1.6
    torch.testing.assert_close(claimed.sum(1), torch.zeros_like(TRUTH), rtol=0, atol=1e-9)
    assert float(torch.linalg.eigvalsh(claimed).min()) > -1e-12
    # Not biased towards the mean virtual client either.
    assert float((errors.mean(0) / (errors.std(0) / len(errors) ** 0.5)).abs().max()) < 4


@pytest.mark.parametrize(("clients", "rows"), [(80, 12), (400, 12), (400, 100)])
def test_the_misfit_of_a_client_that_is_like_a_virtual_one_is_about_one(
    clients: int, rows: int
) -> None:
    misfits = [_world(clients, rows, seed=seed).answer().reduced_chi_square for seed in range(60)]
    assert 0.5 < float(torch.tensor(misfits).mean()) < 1.6


def test_the_misfit_of_a_client_of_another_world_is_large_and_widens_its_error() -> None:
    world = _world()
    like = world.answer()
    strange = replace(world, observed=world.observed + 3 * _normal(12, seed=8)).answer()
    assert strange.reduced_chi_square > 50
    assert like.reduced_chi_square < 3
    torch.testing.assert_close(
        strange.covariance,
        like.covariance * strange.reduced_chi_square / max(1, like.reduced_chi_square),
    )


@pytest.mark.parametrize("factor", [1e-7, 1e-3, 1e4, 1e7])
@pytest.mark.parametrize("among", [1, 6, 12])
def test_units_do_not_matter(factor: float, among: int) -> None:
    """Of some rows, or of all: a bias update is 1e-5 large where a layer's inputs are 1."""
    world, units = _world(), torch.ones(12, dtype=torch.float64)
    units[:among] = factor
    found = replace(world, rows=world.rows * units, observed=world.observed * units).answer()
    plain = world.answer()
    torch.testing.assert_close(found.shares, plain.shares, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.covariance, plain.covariance, rtol=1e-5, atol=1e-9)
    assert found.reduced_chi_square == pytest.approx(plain.reduced_chi_square, rel=1e-5)


def test_the_order_of_rows_and_of_clients_does_not_matter() -> None:
    world, closeness = _world(), torch.linspace(0.1, 1, 80, dtype=torch.float64)
    clients, rows = _normal(80, seed=6).argsort(), _normal(12, seed=7).argsort()
    other = World(world.shares[clients], world.rows[clients][:, rows], world.observed[rows])
    found, plain = other.answer(closeness[clients]), world.answer(closeness)
    torch.testing.assert_close(found.shares, plain.shares, rtol=0, atol=1e-8)
    assert found.reduced_chi_square == pytest.approx(plain.reduced_chi_square)


def test_relabelled_classes_relabel_the_answer() -> None:
    world, order = _world(), torch.tensor([2, 0, 3, 1])
    plain, found = world.answer(), replace(world, shares=world.shares[:, order]).answer()
    torch.testing.assert_close(found.shares, plain.shares[order], rtol=0, atol=1e-8)
    torch.testing.assert_close(found.covariance, plain.covariance[order][:, order])


def test_more_rows_than_clients_tell_more_than_few() -> None:
    few, many = (
        torch.stack([_world(40, rows, 0.1, s).answer().shares - TRUTH for s in range(40)])
        for rows in (12, 200)
    )
    assert float(many.abs().mean()) < 0.7 * float(few.abs().mean())


def test_clients_that_count_little_hardly_matter() -> None:
    """Those near the client have another slope than those far away: the former's holds."""
    near, far = _world(seed=1), _world(seed=2)
    bent = far.rows + 3 * far.shares @ _normal(4, 12, seed=9)
    both = replace(
        near, shares=torch.cat([near.shares, far.shares]), rows=torch.cat([near.rows, bent])
    )
    ones = torch.ones(80, dtype=torch.float64)
    alone = near.answer().shares
    ignored = both.answer(torch.cat([ones, 1e-9 * ones])).shares
    torch.testing.assert_close(ignored, alone, rtol=0, atol=1e-4)
    assert float((both.answer().shares - alone).abs().sum()) > 0.02


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_only_the_ratios_of_the_weights_count(factor: float) -> None:
    world, closeness = _world(), torch.linspace(0.1, 1, 80, dtype=torch.float64)
    found, plain = world.answer(factor * closeness), world.answer(closeness)
    torch.testing.assert_close(found.shares, plain.shares, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_rows_that_are_the_same_for_everyone_change_nothing(value: float) -> None:
    world = _world()
    same = torch.full((80, 2), value, dtype=torch.float64)
    wider = World(
        world.shares, torch.cat([world.rows, same], 1), torch.cat([world.observed, same[0]])
    )
    torch.testing.assert_close(wider.answer().shares, world.answer().shares, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clients", [1, 2, 3, 5])
def test_too_few_clients_are_no_crash(clients: int) -> None:
    found = _world(clients).answer()
    assert bool(torch.isfinite(found.shares).all())
    assert float(found.shares.sum()) == pytest.approx(1)
