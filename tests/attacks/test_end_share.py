"""How far between both ends of the round S is taken, scheme by scheme."""

from __future__ import annotations

from typing import Any

import pytest

from rlu_cli.attacks.rlu import end_share
from rlu_cli.schemes import Recursion, step_weights


def _share(steps: int, **settings: Any) -> float:
    return end_share(step_weights(Recursion((0.05,) * steps, **settings)))


@pytest.mark.parametrize("steps", [2, 3, 10, 50])
def test_plain_sgd_averages_both_ends_as_printed(steps: int) -> None:
    assert _share(steps) == pytest.approx(0.5)


def test_one_step_sees_the_start_alone() -> None:
    assert _share(1) == 0.0
    assert _share(1, momentum=0.9) == 0.0


def test_a_leash_moves_it_to_the_end_and_momentum_to_the_start() -> None:
    leashes = [_share(10, pull=pull) for pull in (0.0, 0.5, 5.0)]
    momenta = [_share(10, momentum=gamma) for gamma in (0.0, 0.5, 0.9)]
    assert leashes == sorted(leashes)
    assert momenta == sorted(momenta, reverse=True)
    assert leashes[-1] < 1
    assert momenta[-1] > 0
