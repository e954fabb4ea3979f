"""What an optimiser's or a scheduler's state in a checkpoint says of the client's training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlu_cli.checkpoints.facts import SCHEDULED, collect_facts


def facts(**outer: Any) -> dict[str, Any]:
    return {name: one.value for name, one in collect_facts([outer], "c.pt").items()}


def group(**values: Any) -> dict[str, Any]:
    return {"state": {}, "param_groups": [{"params": [0], **values}]}


def test_betas_mean_adam() -> None:
    found = facts(optimizer=group(lr=0.001, betas=(0.9, 0.999)))
    assert found["optimizer"] == "adam"
    assert found["lr"] == 0.001


def test_running_moments_mean_adam_without_betas() -> None:
    state = {0: {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}}
    assert facts(optimizer={**group(lr=0.001), "state": state})["optimizer"] == "adam"


def test_a_decoupled_decay_means_adamw() -> None:
    told = group(lr=0.001, betas=(0.9, 0.999), decoupled_weight_decay=True)
    assert facts(optimizer=told)["optimizer"] == "adamw"


def test_plain_sgd_is_no_adam_and_has_its_rate() -> None:
    found = facts(optimizer=group(lr=0.1, momentum=0.9))
    assert "optimizer" not in found
    assert SCHEDULED not in found
    assert found["lr"] == 0.1


def test_the_last_rate_of_a_schedule_is_not_taken() -> None:
    found = facts(optimizer=group(lr=0.001, initial_lr=0.1))
    assert "lr" not in found
    assert found[SCHEDULED] == "from 0.1 to 0.001"


@pytest.mark.parametrize("key", ["scheduler", "lr_scheduler_state_dict", "lr_schedulers"])
def test_a_schedulers_state_hides_the_rate(key: str) -> None:
    found = facts(optimizer=group(lr=0.001), **{key: {"last_epoch": 7}})
    assert "lr" not in found
    assert found[SCHEDULED] == "a scheduler"


def test_an_empty_schedulers_state_hides_nothing() -> None:
    assert facts(optimizer=group(lr=0.001), scheduler={})["lr"] == 0.001
