"""What a case cannot do without, under which settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sample_case import counted_pair

from rlu_cli.attacks import ATTACKS
from rlu_cli.case.requirements import check_complete, require_local_training
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import UsageError
from rlu_cli.settings.layers import flag_layer, resolve
from rlu_cli.settings.specs import ATTACK, CALIBRATE

PLAIN = counted_pair()  # a model without BatchNorm
BUFFERS = counted_pair((0, 4))
STILL = counted_pair((4, 4))


def _labels(check: Callable[[], None]) -> set[str]:
    """The settings that a check says are missing; none where it has nothing to say."""
    try:
        check()
    except UsageError as error:
        labels = {label for label, _ in error.facts}
        return labels if error.code == "E102" and labels else {str(error)}
    return set()


def _missing(pair: CheckpointPair = PLAIN, **flags: Any) -> set[str]:
    """What an attack lacks."""
    settings = resolve([flag_layer(flags)], ATTACK)
    return _labels(lambda: check_complete(settings, pair)) - {"note"}


def _lacking(**flags: Any) -> set[str]:
    """What a calibration lacks."""
    settings = resolve([flag_layer(flags)], CALIBRATE)
    return _labels(lambda: require_local_training(settings))


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ({}, {"lr", "epochs"}),
        ({"lr": 1}, {"epochs"}),
        ({"epochs": 1}, {"lr"}),
        ({"lr": 1, "epochs": 1}, set()),
        ({"lr": 1, "epochs": 1, "samples": 8}, {"batch_size"}),
        ({"lr": 1, "epochs": 1, "samples": 8, "batch_size": 4}, set()),
        ({"lr": 1, "epochs": 1, "scheme": "fedprox"}, {"lambda"}),
        ({"lr": 1, "epochs": 1, "scheme": "fedprox", "lambda": 0}, set()),
        ({"lr": 1, "epochs": 1, "scheme": "scaffold"}, {"history"}),
        ({"lr": 1, "epochs": 1, "scheme": "scaffold", "history": "h"}, set()),
        ({"lr": 1, "epochs": 1, "scheme": "feddyn"}, {"lambda", "history"}),
        ({"lr": 1, "epochs": 1, "scheme": "feddc"}, {"lambda", "history"}),
        ({"lr": 1, "epochs": 1, "joint": True}, {"history"}),
        ({"lr": 1, "epochs": 1, "joint": True, "history": "h"}, set()),
        ({"lr": 1, "epochs": 1, "joint": False}, set()),
        ({"scheme": "feddyn", "samples": 8}, {"lr", "epochs", "batch_size", "lambda", "history"}),
    ],
)
def test_all_that_is_missing_is_listed_at_once(flags: dict[str, Any], missing: set[str]) -> None:
    assert _missing(**flags) == missing


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"method": "fusion"},
        {"method": "rlu,fusion"},
        {"momentum": 0.9},
        {"history": "h"},
        {"weight_decay": 0},
        {"momentum": 0, "history": "h"},
        {"optimizer": "adam"},
        {"clip": 1},
    ],
)
def test_the_rate_may_be_left_to_a_method_that_reads_buffers(flags: dict[str, Any]) -> None:
    assert _missing(BUFFERS, epochs=1, **flags) == set()


@pytest.mark.parametrize(
    "flags",
    [
        {"method": "rlu"},
        {"method": "rlu,path"},
        {"weight_decay": 1e-4},
        {"scheme": "fedprox", "lambda": 0.1},
        {"scheme": "scaffold", "history": "h"},
        {"momentum": 0.9, "history": "h"},
    ],
)
def test_the_rate_is_needed_where_it_does_more_than_scale_or_no_method_finds_it(
    flags: dict[str, Any],
) -> None:
    assert _missing(BUFFERS, epochs=1, **flags) == {"lr"}


@pytest.mark.parametrize("pair", [PLAIN, STILL], ids=["no counters", "still counters"])
def test_the_rate_is_needed_where_no_counter_shows_the_steps(pair: CheckpointPair) -> None:
    assert _missing(pair, epochs=1, method="fusion") == {"lr"}


def test_what_the_counters_say_is_noted_beside_what_is_missing() -> None:
    with pytest.raises(UsageError) as caught:
        check_complete(resolve([flag_layer({"lr": 1, "steps_per_epoch": 3})], ATTACK), BUFFERS)
    facts = dict(caught.value.facts)
    assert "4 steps" in facts["note"]
    assert "--epochs" in facts["epochs"]


def _no_rate(pair: CheckpointPair, **flags: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        check_complete(resolve([flag_layer({"lr": "infer", "epochs": 1, **flags})], ATTACK), pair)
    assert caught.value.code == "E102"
    assert "cannot be inferred" in caught.value.message
    return caught.value


def test_a_rate_can_be_inferred_from_buffers() -> None:
    assert _missing(BUFFERS, lr="infer", epochs=1) == set()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"method": "rlu"}, "fusion"),
        ({"weight_decay": 0.1}, "weight_decay"),
        ({"scheme": "fedprox", "lambda": 0.1}, "lambda"),
        ({"weight_decay": 0.1, "scheme": "fedprox", "lambda": 0.1}, "weight_decay and lambda"),
        ({"scheme": "scaffold", "history": "h"}, "memory"),
        ({"momentum": 0.9, "history": "h"}, "memory"),
    ],
)
def test_a_rate_that_cannot_be_inferred_is_refused_with_the_reason(
    flags: dict[str, Any], why: str
) -> None:
    error = _no_rate(BUFFERS, **flags)
    assert why in error.why
    assert "--lr ETA" in error.hint


@pytest.mark.parametrize("pair", [PLAIN, STILL], ids=["no counters", "still counters"])
def test_no_rate_is_inferred_without_counters_that_moved(pair: CheckpointPair) -> None:
    error = _no_rate(pair)
    assert "BatchNorm" in error.why
    assert "--lr ETA" in error.hint


@pytest.mark.parametrize("flags", [{"optimizer": "adam"}, {"optimizer": "adamw"}, {"clip": 1}])
def test_no_rate_is_inferred_of_a_client_that_is_not_linear(flags: dict[str, Any]) -> None:
    with_buffers, without = (_no_rate(pair, **flags).hint for pair in (BUFFERS, PLAIN))
    assert "--lr" in with_buffers
    assert "--lr ETA" not in with_buffers  # any rate would do: nothing that is read depends on it
    assert "--lr ETA" in without


def test_both_reasons_are_given_of_adam_with_clipping() -> None:
    why = _no_rate(BUFFERS, optimizer="adam", clip=1).why
    assert "Adam" in why
    assert "clipping" in why


@pytest.mark.parametrize("name", ATTACKS)
def test_a_method_alone_asks_for_the_rate_if_it_needs_one(name: str) -> None:
    needed = {"lr"} if ATTACKS[name].needs_lr else set()
    assert _missing(BUFFERS, epochs=1, method=name) == needed


@pytest.mark.parametrize(
    ("flags", "missing"),
    [
        ({}, {"lr", "epochs"}),
        ({"lr": 1, "epochs": 1}, set()),
        ({"lr": 1, "epochs": 1, "samples": 8}, {"batch_size"}),
        ({"lr": 1, "epochs": 1, "scheme": "fedprox"}, {"lambda"}),
        ({"lr": 1, "epochs": 1, "scheme": "feddyn"}, {"lambda"}),
        ({"lr": 1, "epochs": 1, "scheme": "scaffold"}, set()),
        ({"scheme": "feddc", "samples": 8}, {"lr", "epochs", "batch_size", "lambda"}),
    ],
)
def test_a_calibration_needs_to_know_how_clients_train(
    flags: dict[str, Any], missing: set[str]
) -> None:
    assert _lacking(**flags) == missing


def test_a_calibration_has_no_client_to_infer_a_rate_from() -> None:
    """Its virtual clients would train at some made-up rate."""
    with pytest.raises(UsageError) as caught:
        require_local_training(resolve([flag_layer({"lr": "infer", "epochs": 1})], CALIBRATE))
    assert caught.value.code == "E102"
