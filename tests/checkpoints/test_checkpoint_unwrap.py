"""State dicts are found under every wrapper and prefix, and settings in what surrounds them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoint_files import Opened, Refusal, State
from torch import nn

from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.checkpoints.unwrap import PREFIXES, WRAPPERS, strip_prefixes
from rlu_cli.types import Checkpoint


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    def run(content: object) -> Checkpoint:
        torch.save(content, tmp_path / "c3.pt")
        return open_checkpoint(tmp_path / "c3.pt")

    return run


@pytest.mark.parametrize("wrapper", [*WRAPPERS, "client_3"])
def test_every_wrapper_is_opened(wrapper: str, state: State, opened: Opened) -> None:
    checkpoint = opened({"epoch": 3, wrapper: state, "best": True})
    assert checkpoint.wrappers == (wrapper,)
    assert list(checkpoint.state) == list(state)


@pytest.mark.parametrize(("outer", "inner"), list(permutations(WRAPPERS[:4], 2)))
def test_wrappers_in_every_order(outer: str, inner: str, state: State, opened: Opened) -> None:
    assert opened({outer: {inner: state}}).wrappers == (outer, inner)


def test_the_first_wrapper_of_the_list_counts(state: State, opened: Opened) -> None:
    other = {name: tensor + 1 for name, tensor in state.items()}
    checkpoint = opened({"model": other, "state_dict": state, "ema": other})
    assert checkpoint.wrappers == ("state_dict",)
    assert torch.equal(checkpoint.state["fc.weight"], state["fc.weight"])


def test_a_wrapper_without_tensors_is_passed_over(state: State, opened: Opened) -> None:
    assert opened({"state_dict": {"epoch": 1}, "net": state}).wrappers == ("net",)


def test_a_tensor_beside_the_model_does_not_hide_it(state: State, opened: Opened) -> None:
    assert opened({"loss": torch.tensor(0.3), "model": state}).wrappers == ("model",)


def test_two_unknown_models_are_not_guessed_between(
    state: State, tmp_path: Path, refusal: Refusal
) -> None:
    torch.save({"a": state, "b": state}, tmp_path / "c.pt")
    error = refusal(tmp_path / "c.pt")
    assert error.code == "E208"
    assert "a, b" in dict(error.facts)["found"]


def test_what_is_no_tensor_is_dropped(state: State, opened: Opened) -> None:
    assert list(opened({**state, "version": 2, "name": "x", "_extra": None}).state) == list(state)


@pytest.mark.parametrize("order", list(permutations(PREFIXES)))
def test_prefixes_in_every_order(order: tuple[str, ...], state: State, opened: Opened) -> None:
    prefix = "".join(order)
    checkpoint = opened({prefix + name: tensor for name, tensor in state.items()})
    assert checkpoint.prefixes == order
    assert list(checkpoint.state) == list(state)


def test_repeated_prefixes(state: State) -> None:
    names, prefixes = strip_prefixes({f"module.module.{n}": t for n, t in state.items()})
    assert (list(names), prefixes) == (list(state), ("module.", "module."))


def test_a_prefix_that_not_all_share_stays(state: State) -> None:
    mixed = {f"module.{name}": tensor for name, tensor in state.items()} | {"x": torch.zeros(1)}
    assert strip_prefixes(mixed) == (mixed, ())


def _training(**options: Any) -> SimpleNamespace:
    net = nn.Linear(2, 2)
    optimiser = torch.optim.SGD(net.parameters(), **options)
    net(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return SimpleNamespace(model=net.state_dict(), optimiser=optimiser.state_dict())


@pytest.mark.parametrize("key", ["optimizer", "optimizer_state_dict"])
def test_the_optimiser_tells_its_settings(key: str, opened: Opened) -> None:
    run = _training(lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    facts = opened({"model": run.model, key: run.optimiser}).facts
    assert {name: fact.value for name, fact in facts.items()} == {
        "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True,
    }  # fmt: skip
    assert facts["lr"].source == f"c3.pt: {key}.param_groups[0].lr"


def test_what_is_off_is_no_fact(opened: Opened) -> None:
    run = _training(lr=0.05)
    assert set(opened({"model": run.model, "optimizer": run.optimiser}).facts) == {"lr"}


def test_a_list_of_optimisers_and_hyper_parameters_as_lightning_saves_them(opened: Opened) -> None:
    run = _training(lr=0.05)
    content = {
        "state_dict": run.model,
        "optimizer_states": [run.optimiser],
        "hyper_parameters": {
            "learning_rate": 0.7,
            "batch_size": 32,
            "local_epochs": 5,
            "epochs": 9,
        },
    }
    facts = opened(content).facts
    assert facts["lr"].value == 0.05
    assert facts["lr"].source == "c3.pt: optimizer_states[0].param_groups[0].lr"
    assert facts["batch_size"].value == 32
    assert facts["epochs"].value == 5
    assert facts["epochs"].source == "c3.pt: hyper_parameters.local_epochs"


def test_groups_that_disagree_tell_nothing(opened: Opened) -> None:
    group = {"lr": 0.1, "momentum": 0.9, "params": [0]}
    groups = [group, {**group, "lr": 0.01, "params": [1]}]
    run = _training(lr=1.0)
    facts = opened({"model": run.model, "optimizer": {"param_groups": groups}}).facts
    assert set(facts) == {"momentum"}


@pytest.mark.parametrize(
    "lr", [0, -0.1, True, "0.1", float("nan"), float("inf"), None, [0.1], 10**400]
)
def test_only_finite_positive_numbers_are_facts(lr: object, opened: Opened) -> None:
    run = _training(lr=1.0)
    content = {"model": run.model, "optimizer": {"param_groups": [{"lr": lr}]}, "args": {"lr": lr}}
    assert opened(content).facts == {}


@pytest.mark.parametrize("odd", [None, 3, [], {}, {"param_groups": 3}, {"param_groups": [1]}])
def test_odd_optimisers_tell_nothing(odd: object, opened: Opened) -> None:
    run = _training(lr=1.0)
    assert opened({"model": run.model, "optimizer": odd, "optimizer_states": [odd]}).facts == {}
