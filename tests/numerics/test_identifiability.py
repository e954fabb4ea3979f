"""Classes told together and not apart, and answers that tell nothing, against clients drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rlu_cli.audit.identifiability import check_informative
from rlu_cli.numerics.identifiability import expected_loss, unidentifiable_groups, uninformative
from rlu_cli.numerics.simplex import mixture
from rlu_cli.types import Recovery, Status


@dataclass(frozen=True)
class Answer:
    """Least squares of one noisy reading of known shares, and the covariance of its error."""

    truth: Tensor
    shares: Tensor
    covariance: Tensor

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        return unidentifiable_groups(self.shares, self.covariance)

    @property
    def uninformative(self) -> bool:
        return uninformative(self.shares, self.shares, self.covariance)

    @property
    def iacc(self) -> float:
        return 1 - float((self.shares - self.truth).abs().sum()) / 2

    @property
    def floor(self) -> float:
        return 1 - float((1 / len(self.truth) - self.truth).abs().sum()) / 2


def _normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _read(columns: Tensor, truth: Tensor, noise: float, seed: int) -> Answer:
    """y = F z + noise, solved; what no row sees has a deviation of 1."""
    classes = len(truth)
    observed = columns @ truth + noise * _normal(len(columns), seed=seed)
    found = mixture(columns / noise, observed / noise)
    plane = torch.linalg.qr((torch.eye(classes).double() - 1 / classes)[:, 1:])[0]
    inside = columns / noise @ plane
    unit = torch.eye(classes - 1, dtype=torch.float64)
    covariance = plane @ torch.linalg.inv(inside.T @ inside + unit) @ plane.T
    return Answer(truth, found.shares, covariance)


def _client(classes: int, seed: int) -> Tensor:
    alpha = (0.1, 0.5, 1.0, 5.0)[seed % 4]
    return torch.from_numpy(np.random.default_rng(seed).dirichlet([alpha] * classes))


def _columns(classes: int, *alike: tuple[int, ...], apart: float = 0.0) -> Tensor:
    """Columns at random; those of each group differ by `apart` of what others do."""
    columns = _normal(40, classes, seed=classes) / 6
    for group in alike:
        first = columns[:, group[:1]].clone()
        columns[:, list(group)] = first + apart * (columns[:, list(group)] - first)
    return columns


EVEN = torch.full((10,), 0.1, dtype=torch.float64)


@pytest.mark.parametrize("apart", [0.0, 1e-3, 0.01])
@pytest.mark.parametrize("group", [(3, 7), (0, 4, 9), (1, 2, 5, 6, 8)])
def test_classes_with_one_column_are_named_together(group: tuple[int, ...], apart: float) -> None:
    columns = _columns(10, group, apart=apart)
    for seed in range(10):
        assert _read(columns, EVEN, 0.01, seed).groups == (group,)


def test_several_groups_are_told_apart() -> None:
    columns = _columns(10, (3, 7), (0, 1, 9))
    assert _read(columns, EVEN, 0.01, 0).groups == ((0, 1, 9), (3, 7))


@pytest.mark.parametrize("noise", [1e-4, 0.01, 0.1, 0.3, 3.0])
@pytest.mark.parametrize("classes", [2, 3, 10, 30])
def test_noise_alone_makes_no_classes_alike(classes: int, noise: float) -> None:
    """Wide intervals of classes that absent ones surround are no confusion, however wide."""
    for seed in range(12):
        assert not _read(torch.eye(classes).double(), _client(classes, seed), noise, seed).groups
        assert not _read(_columns(classes), _client(classes, seed), noise, seed).groups


def test_a_pair_that_is_far_enough_apart_for_its_share_is_told() -> None:
    """By hand: the split of a sum of 0.2 is known once its deviation is below 0.2 / √3."""
    direction = torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64)
    shares = torch.tensor([0.1, 0.1, 0.4, 0.4], dtype=torch.float64)
    found = {}
    for deviation in (0.09, 0.11, 0.13, 0.5):  # of z_0 - z_1, nothing else being uncertain
        covariance = torch.outer(direction, direction) * (deviation / 2) ** 2
        found[deviation] = unidentifiable_groups(shares, covariance)
    assert found == {0.09: (), 0.11: (), 0.13: ((0, 1),), 0.5: ((0, 1),)}


def test_classes_alike_that_are_both_absent_are_known_to_be() -> None:
    truth = torch.tensor([0.0, 0.0, 0.5, 0.3, 0.2], dtype=torch.float64)
    assert _read(_columns(5, (0, 1)), truth, 0.01, 1).groups == ()
    assert _read(_columns(5, (0, 2)), truth, 0.01, 1).groups == ((0, 2),)


def test_relabelled_classes_relabel_the_groups() -> None:
    answer = _read(_columns(10, (2, 5)), EVEN, 0.01, 4)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    moved = unidentifiable_groups(answer.shares[order], answer.covariance[order][:, order])
    expected = tuple(sorted(order.tolist().index(n) for n in (2, 5)))
    assert moved == (expected,)


@pytest.mark.parametrize("classes", [2, 3, 10, 50])
def test_uninformed_answers_are_worse_than_an_even_guess_and_others_are_not(classes: int) -> None:
    """Over clients of every kind: what is said of the error is what becomes of the score."""
    check_informative: dict[bool, list[float]] = {True: [], False: []}
    for noise in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
        for seed in range(24):
            answer = _read(torch.eye(classes).double(), _client(classes, seed), noise, seed)
            check_informative[answer.uninformative].append(answer.iacc - answer.floor)
    assert np.mean(check_informative[True]) < -0.1
    assert np.mean(check_informative[False]) > 0.1


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
@pytest.mark.parametrize("classes", [2, 10, 50])
def test_shares_known_to_be_even_are_an_answer(classes: int, noise: float) -> None:
    even = torch.full((classes,), 1 / classes, dtype=torch.float64)
    for seed in range(5):
        assert not _read(torch.eye(classes).double(), even, noise, seed).uninformative


def test_one_split_that_is_unknown_does_not_make_the_rest_so() -> None:
    for seed in range(5):
        answer = _read(_columns(10, (3, 7)), EVEN, 0.01, seed)
        assert not answer.uninformative


@pytest.mark.parametrize(
    ("deviation", "off", "tolerance"),
    [(0.02, 0.0, 0.02), (0.2, 0.0, 0.02), (0.2, 0.3, 0.02), (1.0, 2.0, 0.02), (4.0, 20.0, 0.1)],
)
def test_the_expected_loss_is_that_of_clients_drawn(
    deviation: float, off: float, tolerance: float
) -> None:
    """t from an exponential of mean 1/N, kept as likely as the error makes z."""
    shares = torch.tensor([0.7 + off, 0.3, 0.0, 0.0 - off], dtype=torch.float64)
    answer = torch.tensor([0.25, 0.25, 0.5, 0.0], dtype=torch.float64)
    rng, expected = np.random.default_rng(0), 0.0
    for found, target in zip(shares.tolist(), answer.tolist(), strict=True):
        drawn = rng.exponential(1 / 4, 400_000)
        weights = np.exp(-((drawn - found) ** 2) / (2 * deviation**2))
        expected += float(np.average(np.abs(drawn - target), weights=weights)) / 2
    got = expected_loss(answer, shares, torch.full((4,), deviation, dtype=torch.float64))
    assert got == pytest.approx(expected, rel=tolerance)


def test_a_cautious_answer_is_judged_by_what_was_found() -> None:
    """An answer drawn towards even shares by what is usual is not drawn there once more."""
    answer = torch.tensor([0.46] + [0.06] * 9, dtype=torch.float64)
    found = torch.tensor([1.27] + [-0.03] * 9, dtype=torch.float64)
    covariance = 0.09 * torch.eye(10, dtype=torch.float64)
    recovery = Recovery(answer, None, Status.SOLVED, unconstrained=found, covariance=covariance)
    assert check_informative(recovery).status is Status.SOLVED
    assert check_informative(replace(recovery, unconstrained=answer)).status is Status.UNINFORMATIVE


@pytest.mark.parametrize("deviation", [1e-9, 1e-5, 1.0, 1e3])
@pytest.mark.parametrize("classes", [2, 1000])
def test_extremes_stay_numbers(deviation: float, classes: int) -> None:
    shares = torch.zeros(classes, dtype=torch.float64)
    shares[0] = 1.0
    spread = torch.full_like(shares, deviation)
    lost = expected_loss(shares, shares, spread)
    assert 0 <= lost < 1.01
    covariance = torch.diag(spread**2)
    assert uninformative(shares, shares, covariance) == (deviation >= 1)
    assert unidentifiable_groups(shares, covariance) == ()


def test_an_error_without_bounds_tells_nothing() -> None:
    covariance = torch.full((10, 10), float("inf"), dtype=torch.float64)
    assert uninformative(EVEN, EVEN, covariance)
    assert unidentifiable_groups(EVEN, covariance) == ()
