"""Which images are in which batch: sizes, full passes, and fresh shuffles."""

from __future__ import annotations

import numpy as np
import pytest

from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("samples", [65, 500, 512])
def test_a_pass_holds_every_sample_once(samples: int, drop_last: bool) -> None:
    """65 leaves one image for the last batch of 64, 500 leaves 52, 512 none."""
    local = Local(samples=samples, drop_last=drop_last)
    plan = Plan(epochs=3, batch_size=64, local=local)
    batches = draw_batches(samples, plan.steps, np.random.default_rng(0))
    whole, rest = divmod(samples, 64)
    one_pass = [64] * whole + [rest] * (rest > 0 and not drop_last)
    assert [len(batch) for batch in batches] == one_pass * 3
    passes = [np.concatenate(batches[i : i + len(one_pass)]) for i in _starts(one_pass)]
    for used in passes:
        assert len(set(used.tolist())) == len(used) == sum(one_pass)
        assert set(used.tolist()) <= set(range(samples))
    assert passes[0].tolist() != passes[1].tolist()


def _starts(one_pass: list[int]) -> range:
    return range(0, 3 * len(one_pass), len(one_pass))


def test_steps_per_epoch_are_full_batches_of_all_images() -> None:
    plan = Plan(epochs=2, batch_size=8, local=Local(steps_per_epoch=3))
    batches = draw_batches(11, plan.steps, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [8] * 6
    used = np.bincount(np.concatenate(batches), minlength=11)
    assert used.max() - used.min() <= 1


def test_an_epoch_alone_is_one_batch() -> None:
    batches = draw_batches(11, Plan(epochs=4, batch_size=8).steps, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [8] * 4
