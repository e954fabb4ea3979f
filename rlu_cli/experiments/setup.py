"""One simulated federation of the paper: its settings, its request and its folder's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rlu_cli.simulator.defences import Defence
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.simulation import Request


@dataclass(frozen=True)
class Architecture:
    """A model under the name of this package's experiments.

    title  as the tables print it
    model  architecture it is built from
    given  arguments besides the activation
    bare   it is built without an activation argument
    """

    title: str
    model: str
    given: tuple[str, ...] = ()
    bare: bool = False


MODELS: Mapping[str, Architecture] = {
    "lenet5": Architecture("LeNet-5", "lenet5"),
    "vgg16": Architecture("VGG-16", "vgg16"),
    "resnet50": Architecture("ResNet-50", "resnet50"),
    "cnn": Architecture("CNN", "cnn", bare=True),
    "vgg16q": Architecture(
        "VGG-16 of quarter width", "vgg16", ("width=0.25", "hidden=512"), bare=True
    ),
}


@dataclass(frozen=True)
class Setup:
    """One federation (B.2).

    dataset   the paper's name of the images
    model     one of MODELS
    act       activation
    steps     m, local epochs of one mini-batch each
    scheme    of the federation, with its λ in `pull`
    noise     σ of Gaussian noise on each step's mean gradient, or on each sample's
    pretrain  training accuracy reached by centralised training before the first round
    rounds    t; the last one is attacked
    clients   number of clients that the images are divided among
    """

    dataset: str
    model: str
    batch: int
    alpha: float
    act: str = "relu"
    steps: int = 10
    lr: float = 0.01
    scheme: str = "fedavg"
    pull: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    noise: float = 0.0
    noise_on: str = "batch"
    pretrain: float | None = None
    rounds: int = 1
    clients: int = 10

    @property
    def title(self) -> str:
        return MODELS[self.model].title

    @property
    def used(self) -> int:
        """Images that go into one client's update, m·|B|."""
        return self.steps * self.batch


USUAL: Mapping[str, Setup] = {
    setup.dataset: setup
    for setup in (
        Setup("SVHN", "lenet5", batch=32, alpha=0.5),
        Setup("CIFAR10", "vgg16", batch=64, alpha=0.5),
        Setup("CIFAR100", "vgg16", batch=256, alpha=0.1),
        Setup("Tiny", "resnet50", batch=256, alpha=0.1),
    )
}


def usual(dataset: str, **changes: Any) -> Setup:
    """The paper's federation for a data set (B.2.1, B.2.2), with some values changed."""
    return replace(USUAL[dataset], **changes)


def folder_name(setup: Setup, images: str) -> str:
    """Name of the run's folder, from all that varies between runs except the round."""
    first = f"{images}-{setup.model}-{setup.act}-m{setup.steps}-lr{setup.lr:g}-a{setup.alpha:g}"
    rest = (
        f"-p{setup.pretrain:g}" if setup.pretrain is not None else "",
        f"-{setup.scheme}{_number(setup.pull)}" if setup.scheme != "fedavg" else "",
        f"-g{setup.momentum:g}{'-nag' * setup.nesterov}" if setup.momentum else "",
        f"-n{setup.noise:g}{setup.noise_on}" if setup.noise else "",
    )
    return first + "".join(rest)


def _number(value: float) -> str:
    return f"{value:g}" if value else ""


def simulation_request(
    setup: Setup,
    images: Path,
    auxiliary: int,
    device: torch.device,
    clients: tuple[int, ...] | None = None,
) -> Request:
    """The request to the simulator.

    auxiliary  images of each class the server holds
    clients    the ones to train in the last round, all when None
    """
    architecture = MODELS[setup.model]
    act = () if architecture.bare else (f"act={setup.act}",)
    return Request(
        plan=_plan(setup, clients),
        device=device,
        images=str(images),
        model=architecture.model,
        model_args=(*act, *architecture.given),
        aux_per_class=auxiliary,
    )


def _plan(setup: Setup, clients: tuple[int, ...] | None) -> Plan:
    return Plan(
        clients=setup.clients,
        alpha=setup.alpha,
        lr=setup.lr,
        batch_size=setup.batch,
        epochs=setup.steps,
        rounds=setup.rounds,
        only=clients,
        local=Local(
            scheme=setup.scheme,
            pull=setup.pull,
            momentum=setup.momentum,
            nesterov=setup.nesterov,
        ),
        defence=Defence(setup.noise, setup.noise_on),
        pretrain=setup.pretrain,
    )
