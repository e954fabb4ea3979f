"""The output layer is where the logits come from, whatever it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import own_models
import pytest
import torch
from sample_case import SAMPLE, State
from torch import nn

import rlu_cli
from rlu_cli.api.finding import Finding
from rlu_cli.errors import InputError
from rlu_cli.simulator.digits import draw_digits

CODE = f"{own_models.__file__}:"
COUNTS = [40, 0, 33, 5, 0, 0, 61, 12, 8, 1]
STEPS, LR = 5, 0.02

pytestmark = pytest.mark.usefixtures("work")


def trained(model: nn.Module, steps: int = STEPS) -> tuple[State, State]:
    """A client's steps with these labels in all, from the initial weights."""
    torch.manual_seed(3)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels, labels = draw_digits(max(COUNTS), seed=5)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    classes = torch.from_numpy(labels)
    own = torch.cat([torch.nonzero(classes == n)[:c, 0] for n, c in enumerate(COUNTS)])
    optimiser = torch.optim.SGD(model.parameters(), lr=LR)
    for batch in own[torch.randperm(len(own))].chunk(steps):
        optimiser.zero_grad()
        own_models.loss_of(model.train(), shown[batch], classes[batch]).backward()
        optimiser.step()
    return before, dict(model.state_dict())


def attacked(states: tuple[Any, Any], model: str, **more: Any) -> Finding:
    told: dict[str, Any] = {"epochs": STEPS, "lr": LR, "batch_size": sum(COUNTS) // STEPS}
    told |= {"normalize": "half", "draws": 500, "method": "rlu", "device": "cpu"}
    return rlu_cli.attack(*states, SAMPLE / "aux", **{**told, "model": model, **more})


def right(finding: Finding) -> float:
    """iAcc of the counts found."""
    assert finding.counts is not None
    return sum(map(min, COUNTS, finding.counts.values())) / sum(COUNTS)


FOUND = {
    "ScoreFirst": "verdict",
    "LogProbabilities": "verdict",
    "Convolutional": "classifier.1",
    "Squeezed": "classifier.1",
    "Distilled": "head + head_dist",
    "Auxiliary": "head",
    "Tied": "decode",
}
LEAST = {"Squeezed": 0.9, "Distilled": 0.97}


@pytest.mark.parametrize("name", list(FOUND))
def test_the_layer_that_gives_the_logits_is_found_and_read(name: str) -> None:
    finding = attacked(trained(getattr(own_models, name)()), CODE + name)
    assert finding.case_finding.case.layer in (FOUND[name], "project")
    assert right(finding) >= LEAST.get(name, 0.99)


@pytest.mark.parametrize("name", [name for name in FOUND if name != "Squeezed"])
def test_of_one_step_every_label_is_found(name: str) -> None:
    states = trained(getattr(own_models, name)(), steps=1)
    assert right(attacked(states, CODE + name, epochs=1, batch_size=sum(COUNTS))) == 1.0


def test_two_layers_may_be_named() -> None:
    states = trained(own_models.Distilled())
    joined = attacked(states, f"{CODE}Distilled", layer="head+head_dist")
    assert joined.counts == attacked(states, f"{CODE}Distilled").counts
    assert any("mean of 2 layers" in line for line in
               attacked(states, f"{CODE}Distilled").case_finding.assumptions)  # fmt: skip


def test_two_layers_without_a_model_are_asked_for() -> None:
    with pytest.raises(InputError) as caught:
        rlu_cli.attack(*trained(own_models.Distilled()), SAMPLE / "aux", epochs=1, lr=LR)
    assert caught.value.code in ("E210", "E215")


@pytest.mark.parametrize("method", ["bayes", "path", "fusion", "emulation", "llg-star"])
def test_other_methods_read_joined_and_convolutional_layers(method: str) -> None:
    for name in ("Distilled", "Convolutional"):
        states = trained(getattr(own_models, name)())
        told = {"method": method, "virtual_clients": 6} if method == "emulation" else {}
        assert right(attacked(states, CODE + name, **{"method": method, **told})) > 0.8


def test_a_model_of_ones_own_under_other_names(work: Path) -> None:
    before, after = trained(own_models.ScoreFirst())
    crit = {"crit.weight": torch.ones(10)}
    renamed = ({f"net.{n}": t for n, t in before.items()} | crit, after)
    assert right(attacked(renamed, f"{CODE}ScoreFirst")) >= 0.99
    both = tuple({f"model._orig_mod.{n}": t for n, t in s.items()} for s in (before, after))
    assert right(attacked((both[0], both[1]), f"{CODE}ScoreFirst")) >= 0.99
