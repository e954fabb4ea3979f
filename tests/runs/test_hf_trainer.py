"""HF Trainer's schedules, optimisers and logs, between two of its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_folders as lay
import torch

from rlu_cli.runs import Run, choose
from rlu_cli.schemes import learning_rates

Opened = Callable[..., Run]


def _chosen(opened: Opened, arguments: object) -> dict[str, Any]:
    """The settings of the pair from step 3 to step 5 of 10."""
    run = opened(lay.hf_checkpoints, arguments)
    return {name: given.value for name, given in choose(run).values.items()}


def _linear(warm: int) -> list[float]:
    """The rates of ten steps, by transformers.optimization.get_linear_schedule_with_warmup."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: k / warm if k < warm else (10 - k) / (10 - warm)
    )
    rates = []
    for _ in range(10):
        rates.append(float(optimiser.param_groups[0]["lr"]))
        optimiser.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warm", [0, 2, 3])
def test_a_linear_schedule_is_that_of_the_steps_between(warm: int, opened: Opened) -> None:
    kind = lay.SchedulerType("linear")
    arguments = lay.hf_arguments(lr_scheduler_type=kind, warmup_steps=warm)
    found = _chosen(opened, arguments)
    ours = learning_rates(found["lr"], 2, found["lr_schedule"])
    assert ours == pytest.approx(_linear(warm)[3:5], rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("linear", {"warmup_steps": 4}),
        ("linear", {"warmup_ratio": 0.35}),
        ("cosine", {}),
        ("polynomial", {}),
    ],
)
def test_a_schedule_that_cannot_be_said_gives_no_rate(
    kind: str, told: dict[str, Any], opened: Opened
) -> None:
    arguments = lay.hf_arguments(lr_scheduler_type=lay.SchedulerType(kind), **told)
    assert not {"lr", "lr_schedule"} & set(_chosen(opened, arguments))


def test_a_cosine_from_its_start(opened: Opened) -> None:
    kind = lay.SchedulerType("cosine")
    found = _chosen(opened, lay.hf_arguments(lr_scheduler_type=kind, warmup_steps=3))
    assert (found["lr"], found["lr_schedule"]) == (0.01, "cosine:7")


def test_the_trainers_own_optimiser(opened: Opened) -> None:
    own = lay.hf_arguments(optim=lay.SchedulerType("adamw_torch_fused"), max_grad_norm=1.0)
    found = _chosen(opened, own)
    assert found["optimizer"] == "adamw"
    assert found["betas"] == (0.9, 0.999)
    assert found["clip"] == 1.0


def test_without_arguments_the_log_tells_the_rate_and_a_note_the_rest(opened: Opened) -> None:
    run = opened(lay.hf_checkpoints, None)
    found = choose(run).values
    assert found["lr"].value == 0.01
    assert "log_history" in found["lr"].source
    assert found["batch_size"].value == 4
    assert "optimizer" not in found
    assert "adamw" in run.notes[0]


def test_a_log_with_several_rates_tells_none(opened: Opened, tmp_path: Path) -> None:
    def two_rates(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.hf_checkpoints(folder, before, after, None)
        path = folder / "checkpoint-5" / "trainer_state.json"
        told = json.loads(path.read_text("utf-8"))
        told["log_history"][-1]["learning_rate"] = 0.02
        path.write_text(json.dumps(told), encoding="utf-8")

    assert "lr" not in choose(opened(two_rates)).values


def test_arguments_that_are_no_pickle_are_passed_over(opened: Opened) -> None:
    def spoilt(folder: Path, before: lay.State, after: lay.State) -> None:
        lay.hf_trainer(folder, before, after)
        for path in folder.rglob("training_args.bin"):
            path.write_bytes(b"no pickle")

    assert choose(opened(spoilt)).values["lr"].source.startswith("checkpoint-5/trainer_state")


def test_the_first_checkpoint_counts_its_steps_from_the_start(opened: Opened) -> None:
    first = opened(lay.hf_trainer).exchanges[0]
    assert (first.round, first.before) == (3, None)
    assert first.values["epochs"].value == 3
