"""A right run names nothing; every mistake is named, with its value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlu_cli.audit.attack import attack
from rlu_cli.audit.diagnostics import explanation_warnings
from rlu_cli.audit.explanations import Explanation
from rlu_cli.case.build import build_case
from rlu_cli.models import build_model, load_weights
from rlu_cli.models.input_scaling import parse_normalisation
from rlu_cli.settings.layers import ARGUMENT, flag_layer
from rlu_cli.simulator.client import State, copy_state, seeded, train_client
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.types import Auxiliary

LENET, VGG = ("lenet5", {"act": "relu"}), ("vgg16", {"act": "relu", "width": 0.125, "hidden": 32})
CLIENT = torch.tensor([60, 0, 0, 40, 30, 0, 90, 20, 0, 80])  # images of each class
COUNT = 240  # images of each class, of which the server has the last 40


@dataclass(frozen=True)
class Given:
    """What the user gives."""

    before: State
    after: State
    auxiliary: Auxiliary
    settings: Mapping[str, Any]

    def told(self, **settings: Any) -> Given:
        return replace(self, settings={**self.settings, **settings})

    @property
    def named(self) -> Explanation | None:
        flags = flag_layer(dict(self.settings), ARGUMENT)
        case = build_case(self.before, self.after, self.auxiliary, flags)
        return attack(case, ("uniform",)).explanation


@cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return draw_digits(COUNT, 3)


def server_images() -> Auxiliary:
    images, labels = digits()
    kept = np.arange(len(labels)) % COUNT >= COUNT - 40
    pixels = torch.from_numpy(images[kept]).permute(0, 3, 1, 2).float() / 255
    names = tuple(map(str, range(10)))
    return Auxiliary(pixels.contiguous(), torch.from_numpy(labels[kept]), names, "digits", "")


def network(model: tuple[str, Mapping[str, Any]], state: State | None = None) -> nn.Module:
    with seeded((5,), torch.device("cpu")):
        built = build_model(model[0], arguments=dict(model[1]), classes=10)
    if state is not None:
        load_weights(built, state, path=Path("global"))
    return built


@cache
def started(model: str, trained: bool) -> State:
    """The global model: initial weights, or trained for a few passes on all clients' images."""
    net = network({"lenet5": LENET, "vgg16": VGG}[model])
    if trained:
        images, labels = digits()
        own = np.flatnonzero(np.arange(len(labels)) % COUNT < COUNT - 40)
        local = Local(optimizer="adam", samples=len(own))
        plan = Plan(lr=2e-3, batch_size=64, epochs=4, local=local)
        scaling = parse_normalisation("half")
        train_client(net, images[own], labels[own], plan, classes=10, normalise=scaling, seed=(7,))
    return copy_state(net)


@cache
def client(
    model: str = "lenet5", trained: bool = False, lr: float = 0.05, seed: int = 0, **local: Any
) -> Given:
    images, labels = digits()
    rng = np.random.default_rng(seed)
    counts = CLIENT.numpy() if not seed else rng.permutation(CLIENT.numpy())
    own = np.concatenate(
        [np.flatnonzero(labels == n)[rng.permutation(COUNT - 40)[:c]] for n, c in enumerate(counts)]
    )
    start = started(model, trained)
    kind = {"lenet5": LENET, "vgg16": VGG}[model]
    plan = Plan(lr=lr, batch_size=32, epochs=10, local=Local(**local))
    net, scaling = network(kind, start), parse_normalisation("half")
    sent = train_client(
        net, images[own], labels[own], plan, classes=10, normalise=scaling, seed=(9, seed)
    )
    settings = {"model": kind[0], "model_args": kind[1], "lr": lr, "epochs": 10, "batch_size": 32}
    settings |= {"normalize": "half", "device": "cpu"}
    return Given(start, sent.state, server_images(), settings)


def mean(first: State, second: State) -> State:
    return {k: ((first[k].double() + second[k].double()) / 2).to(first[k]) for k in first}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("model", ["lenet5", "vgg16"])
def test_a_right_run_names_nothing(model: str, *, trained: bool) -> None:
    assert client(model, trained).named is None


@pytest.mark.parametrize("model", ["lenet5", "vgg16"])
def test_a_swapped_pair_is_named(model: str) -> None:
    given = client(model)
    found = replace(given, before=given.after, after=given.before).named
    assert found is not None
    assert found.name == "swapped"
    assert "--global" in found.advice


def test_the_global_model_of_another_training_is_named() -> None:
    given = client()
    with seeded((6,), torch.device("cpu")):
        other = copy_state(build_model("lenet5", arguments={"act": "relu"}, classes=10))
    found = replace(given, before=other).named
    assert found is not None
    assert found.name == "other global"


def test_the_global_model_from_after_aggregation_is_named_by_the_counters() -> None:
    given = client("vgg16")
    found = replace(given, before=mean(given.after, client("vgg16", seed=1).after)).named
    assert found is not None
    assert found.name == "other global"
    assert "aggregation" in found.sentence


@pytest.mark.parametrize("factor", [10, 0.5])
def test_a_wrong_learning_rate_is_named_with_the_one_that_fits(factor: float) -> None:
    found = client().told(lr=0.05 * factor).named
    assert found is not None
    assert found.name == "learning rate"
    low, high = map(float, re.findall(r"\(([\d.]+) to ([\d.]+)\)", found.sentence)[0])
    assert low < 0.05 < high


def test_wrong_steps_are_named_by_the_counters() -> None:
    found = client("vgg16").told(epochs=20).named
    assert found is not None
    assert found.name == "steps"
    assert "10 steps" in found.sentence


def test_momentum_is_one_of_what_fits() -> None:
    given = client(lr=0.01, momentum=0.9)
    found = given.named
    assert found is not None
    assert "momentum 0.9" in found.sentence


def test_adam_is_named() -> None:
    given = client(lr=1e-3, optimizer="adam")
    found = given.named
    assert found is not None
    assert found.name == "adam"
    assert given.told(optimizer="adam").named is None


def test_weight_decay_is_named_with_its_value() -> None:
    found = client(weight_decay=0.01).named
    assert found is not None
    assert found.name == "weight decay"
    value = float(found.advice.rpartition(" ")[2])
    assert value == pytest.approx(0.01, rel=0.1)
    assert client(weight_decay=0.01).told(weight_decay=0.01).named is None


def test_classes_in_another_order_are_named() -> None:
    given = client(trained=True)
    order = torch.tensor([1, 2, 3, 4, 0, 5, 6, 7, 9, 8])
    mixed = replace(given.auxiliary, labels=order[given.auxiliary.labels])
    found = replace(given, auxiliary=mixed).named
    assert found is not None
    assert found.name == "class order"
    # the model's class 0 stands where the images have class 1, and so on
    assert found.advice.endswith("--classes 1,2,3,4,0,5,6,7,9,8")
    assert found.redacted().sentence == "likely mistake: class order"


def test_text_order_is_named() -> None:
    given = client(trained=True)
    names = [str(n) for n in range(1, 11)]
    number = torch.tensor([names.index(name) for name in sorted(names)])
    images = replace(
        given.auxiliary, labels=number[given.auxiliary.labels], class_names=tuple(names)
    )
    found = replace(given, auxiliary=images).named
    assert found is not None
    assert "text order" in found.sentence
    assert found.advice == "give --classes 1,10,2,3,4,5,6,7,8,9"


def test_another_input_scaling_is_named() -> None:
    found = client().told(normalize="none").named
    assert found is not None
    assert found.name == "input scaling"
    assert found.advice == "give --normalize half"


def test_images_of_another_kind_are_named() -> None:
    given = client(trained=True)
    other = 1 - given.auxiliary.images.roll(9, 3)
    found = replace(given, auxiliary=replace(given.auxiliary, images=other)).named
    assert found is not None
    assert found.name == "other images"


def test_an_update_in_place_of_weights_is_named() -> None:
    given = client()
    moved: dict[str, Tensor] = {k: v - given.before[k] for k, v in given.after.items()}
    assert replace(given, after=moved).named is None  # read right
    found = replace(given, after=moved).told(update_kind="weights").named
    assert found is not None
    assert found.name == "delta"
    assert found.advice == "give --update-kind delta"


def test_an_update_in_place_of_the_global_model_is_named() -> None:
    given = client()
    moved: dict[str, Tensor] = {k: v - given.before[k] for k, v in given.after.items()}
    found = replace(given, before=moved, after=given.before).named
    assert found is not None
    assert found.name == "delta"
    assert found.advice.startswith("exchange")


def test_a_frozen_body_is_named() -> None:
    given = client("vgg16")
    head = {k: v for k, v in given.after.items() if k.startswith("classifier.6")}
    found = replace(given, after={**given.before, **head}).named
    assert found is not None
    assert found.name == "frozen body"


def test_the_warning_names_mistake_and_advice() -> None:
    found = Explanation("swapped", 20.0, "the update runs backwards", "exchange the files")
    (warning,) = explanation_warnings(found)
    assert warning.code == "W350"
    assert warning.text == "the update runs backwards: exchange the files"
    assert explanation_warnings(None) == []
