"""The epochs that nobody told, from the steps that BatchNorm counters show."""

from __future__ import annotations

import pytest
from sample_case import counted_pair

from rlu_cli.case.batchnorm_counters import INFERRED, inferred_epochs, step_hints
from rlu_cli.types import Setting


def _told(**values: object) -> dict[str, Setting]:
    return {name: Setting(value, "flag") for name, value in values.items()}


@pytest.mark.parametrize(
    ("told", "epochs"),
    [
        ({}, 12),
        ({"batch_size": 8}, 12),
        ({"steps_per_epoch": 1}, 12),
        ({"steps_per_epoch": 4}, 3),
        ({"steps_per_epoch": 12}, 1),
        ({"samples": 32, "batch_size": 8}, 3),
        ({"samples": 30, "batch_size": 8}, 3),
        ({"samples": 30, "batch_size": 8, "drop_last": True}, 4),
        ({"samples": 5, "batch_size": 8}, 12),
        ({"samples": 32, "batch_size": 8, "steps_per_epoch": 5}, 3),
    ],
)
def test_steps_become_epochs_of_as_many_steps_as_the_settings_say(
    told: dict[str, object], epochs: int
) -> None:
    found = inferred_epochs(_told(**told), counted_pair((5, 17)))
    assert found is not None
    assert found.value == epochs
    assert found.source.startswith(INFERRED)


@pytest.mark.parametrize(
    "told",
    [
        {"epochs": 3},
        {"steps_per_epoch": 5},
        {"samples": 32},
        {"samples": 40, "batch_size": 8},
        {"samples": 5, "batch_size": 8, "drop_last": True},
    ],
)
def test_what_is_told_or_gives_no_whole_number_is_not_inferred(told: dict[str, object]) -> None:
    assert inferred_epochs(_told(**told), counted_pair((5, 17))) is None


def test_without_counters_or_with_still_ones_nothing_is_inferred() -> None:
    assert inferred_epochs({}, counted_pair()) is None
    assert inferred_epochs({}, counted_pair((7, 7))) is None


def test_all_layers_that_agree_are_said_to() -> None:
    found = inferred_epochs({}, counted_pair((5, 8), (5, 8)))
    assert found is not None
    assert "all 2 layers" in found.source
    assert "3" in found.source


def test_one_layer_speaks_for_itself() -> None:
    found = inferred_epochs({}, counted_pair((5, 8)))
    assert found is not None
    assert "layers" not in found.source


def test_where_most_layers_agree_the_others_are_said() -> None:
    found = inferred_epochs({}, counted_pair((0, 3), (0, 3), (0, 6)))
    assert found is not None
    assert found.value == 3
    assert "3 to 6" in found.source
    assert "3 layers" in found.source


@pytest.mark.parametrize(
    "counters",
    [((0.0, 2.5),), ((0.0, 2.0), (0.0, 3.0)), ((9.0, 4.0),)],
    ids=["a fraction", "a tie", "backwards"],
)
def test_counters_that_show_no_whole_number_infer_nothing_and_are_said(
    counters: tuple[tuple[float, float], ...],
) -> None:
    pair = counted_pair(*counters, whole=False)
    assert inferred_epochs({}, pair) is None
    (hint,) = step_hints({}, pair)
    assert "do not agree" in hint


def test_still_counters_are_said_to_be() -> None:
    (hint,) = step_hints({}, counted_pair((7, 7)))
    assert "did not move" in hint


def test_steps_that_are_no_whole_epochs_are_said_with_those_of_an_epoch() -> None:
    (hint,) = step_hints(_told(steps_per_epoch=5), counted_pair((5, 17)))
    assert "12 steps" in hint
    assert "epochs of 5" in hint


def test_steps_are_said_where_nobody_knows_the_batches_of_a_pass() -> None:
    (hint,) = step_hints(_told(samples=32), counted_pair((5, 17)))
    assert "12 steps" in hint
    assert "whole number" not in hint


def test_there_is_no_hint_where_nothing_is_open() -> None:
    assert step_hints({}, counted_pair()) == []
    assert step_hints({}, counted_pair((5, 17))) == []
    assert step_hints(_told(epochs=3), counted_pair((5, 17))) == []
