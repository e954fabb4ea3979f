"""How many steps, how large: batches, full passes, contradictions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlu_cli.errors import UsageError
from rlu_cli.local_training.step_plan import plan_steps
from rlu_cli.settings.client import MAX_STEPS


@pytest.mark.parametrize("epochs", [1, 2, 3])
@pytest.mark.parametrize(
    ("samples", "one_pass"),
    [(65, (64, 1)), (500, (64,) * 7 + (52,)), (512, (64,) * 8), (3, (3,)), (64, (64,))],
)
def test_full_passes_end_in_a_smaller_batch(
    epochs: int, samples: int, one_pass: tuple[int, ...]
) -> None:
    plan = plan_steps(epochs, batch_size=64, samples=samples)
    assert plan.batch_sizes == one_pass * epochs
    assert plan.steps == epochs * len(one_pass)
    assert plan.total == epochs * samples
    assert plan.passes == epochs
    assert plan.assumed is None


@given(st.integers(1, 20), st.integers(1, 300), st.integers(1, 5000))
def test_every_sample_is_seen_once_a_pass(epochs: int, batch: int, samples: int) -> None:
    steps = -(-samples // batch)
    if epochs * steps > MAX_STEPS:
        return
    plan = plan_steps(epochs, batch_size=batch, samples=samples)
    assert plan.steps == epochs * steps
    assert plan.total == epochs * samples
    assert plan.batch_sizes is not None
    assert all(0 < size <= batch for size in plan.batch_sizes)


@given(st.integers(1, 20), st.integers(1, 300), st.integers(1, 5000))
def test_a_dropped_last_batch_leaves_full_ones(epochs: int, batch: int, samples: int) -> None:
    if samples < batch:
        with pytest.raises(UsageError) as caught:
            plan_steps(epochs, batch_size=batch, samples=samples, drop_last=True)
        assert caught.value.code == "E106"
    elif epochs * (samples // batch) <= MAX_STEPS:
        plan = plan_steps(epochs, batch_size=batch, samples=samples, drop_last=True)
        assert plan.batch_sizes == (batch,) * (epochs * (samples // batch))


@pytest.mark.parametrize("epochs", [1, 10])
def test_an_epoch_alone_is_one_batch_and_that_is_said(epochs: int) -> None:
    plan = plan_steps(epochs, batch_size=32)
    assert plan.batch_sizes == (32,) * epochs
    assert plan.total == 32 * epochs
    assert plan.assumed is not None
    assert plan.assumed.startswith(f"--epochs {epochs} read as {epochs} batch")
    assert "--samples" in plan.assumed


def test_steps_per_epoch_are_full_batches_and_assume_nothing() -> None:
    plan = plan_steps(3, batch_size=32, steps_per_epoch=4)
    assert plan.batch_sizes == (32,) * 12
    assert plan.assumed is None


def test_without_a_batch_size_there_is_no_total() -> None:
    for plan in (plan_steps(10), plan_steps(2, steps_per_epoch=5)):
        assert plan.steps == 10
        assert plan.batch_sizes is None
        assert plan.total is None


def test_samples_need_a_batch_size() -> None:
    with pytest.raises(UsageError) as caught:
        plan_steps(1, samples=500)
    assert caught.value.code == "E102"
    assert "--batch-size" in caught.value.hint


def test_samples_and_steps_per_epoch_must_agree() -> None:
    agreeing = plan_steps(2, batch_size=64, samples=500, steps_per_epoch=8)
    assert agreeing == plan_steps(2, batch_size=64, samples=500)
    with pytest.raises(UsageError, match="500 samples in batches of 64 are 8 steps") as caught:
        plan_steps(2, batch_size=64, samples=500, steps_per_epoch=7)
    assert caught.value.code == "E106"


@pytest.mark.parametrize(
    "plan", [{"epochs": MAX_STEPS + 1}, {"epochs": 2, "steps_per_epoch": MAX_STEPS}]
)
def test_more_steps_than_can_be_simulated_are_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="exceed the limit") as caught:
        plan_steps(**plan)
    assert caught.value.code == "E101"


def test_a_dropped_last_batch_does_not_count_towards_the_limit_of_steps() -> None:
    plan = plan_steps(3, 3, 4999, drop_last=True)
    assert plan.steps == 4998
