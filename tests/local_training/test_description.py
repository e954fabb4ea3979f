"""Settings → a client's training, and the reason why it is not linear in its gradients."""

from __future__ import annotations

from typing import Any

import pytest

from rlu_cli.errors import UsageError
from rlu_cli.local_training.description import (
    LocalTraining,
    describe_local_training,
    refuse_nonlinear,
)

DEFAULTS: dict[str, Any] = {
    "scheme": "fedavg",
    "optimizer": "sgd",
    "lr_schedule": "constant",
    "lr": 0.1,
    "epochs": 4,
    "batch_size": 32,
}


def _describe(**given: Any) -> LocalTraining:
    return describe_local_training({**DEFAULTS, **given}.get)


def test_settings_reach_the_recursion() -> None:
    given = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "label_smoothing": 0.1}
    training = _describe(scheme="fedprox", **given, **{"lambda": 0.5}, lr_schedule="step:2:0.5")
    recursion = training.recursion
    assert recursion.lr == (0.1, 0.1, 0.05, 0.05)
    assert (recursion.momentum, recursion.nesterov, recursion.decay) == (0.9, True, 0.01)
    assert (recursion.pull, training.smoothing) == (0.5, 0.1)
    assert recursion.rate == pytest.approx(0.3)


@pytest.mark.parametrize(
    "given", [{"optimizer": "adam"}, {"optimizer": "adamw"}, {"clip": 1.0}], ids=str
)
def test_clients_that_are_not_linear_are_refused_with_a_reason(given: dict[str, Any]) -> None:
    training = _describe(**given, weight_decay=0.1)
    assert training.recursion == _describe(weight_decay=0.1).recursion
    with pytest.raises(UsageError) as error:
        refuse_nonlinear(training)
    assert error.value.code == "E108"
    assert "the files do not contain" in error.value.why
    assert error.value.why == training.nonlinear
    assert next(iter(given)) in error.value.message or given["optimizer"] in error.value.message
    assert "--method ramakrishna-dan-virtual" in error.value.hint


def test_both_reasons_are_named() -> None:
    reasons = _describe(optimizer="adam", clip=1.0).nonlinear
    assert reasons is not None
    assert "Adam" in reasons
    assert "clipping" in reasons


@pytest.mark.parametrize("given", [{}, {"clip": 0.0}, {"momentum": 0.9}], ids=str)
def test_clients_that_take_sgd_steps_are_linear(given: dict[str, Any]) -> None:
    training = _describe(**given)
    assert training.nonlinear is None
    assert training.clip is None
    refuse_nonlinear(training)


def test_settings_of_the_optimiser_are_kept() -> None:
    training = _describe(optimizer="adamw", betas=(0.8, 0.95), clip=2.0, weight_decay=0.1)
    assert (training.optimizer, training.betas, training.clip) == ("adamw", (0.8, 0.95), 2.0)
    assert training.recursion.decay == 0.1
    assert _describe(optimizer="adam").betas == (0.9, 0.999)


@pytest.mark.parametrize(
    "given",
    [
        {"lambda": 0.5},
        {"nesterov": True},
        {"drop_last": True},
        {"betas": (0.8, 0.9)},
        {"optimizer": "adam", "momentum": 0.9},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as error:
        _describe(**given)
    assert error.value.code == "E106"


@pytest.mark.parametrize(
    ("samples", "drop_last", "sizes"),
    [
        (65, False, (64, 1)),
        (65, True, (64,)),
        (500, False, (64,) * 7 + (52,)),
        (500, True, (64,) * 7),
        (512, False, (64,) * 8),
        (512, True, (64,) * 8),
    ],
)
def test_full_passes(samples: int, drop_last: bool, sizes: tuple[int, ...]) -> None:
    plan = _describe(epochs=3, batch_size=64, samples=samples, drop_last=drop_last).plan
    assert plan.batch_sizes == sizes * 3
    assert plan.passes == 3
    assert plan.whole == (sum(sizes) == samples)


def test_dropping_the_only_batch_leaves_nothing() -> None:
    with pytest.raises(UsageError, match="do not fill a batch"):
        _describe(samples=10, batch_size=64, drop_last=True)
