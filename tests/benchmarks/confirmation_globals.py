"""Global models of the confirmation set: trained to several accuracies, centrally or by FedAvg.

Centrally: Adam on all clients' images. By FedAvg: rounds of two clients of five, each with twenty
batches and SGD with momentum; all models but LeNet-5 begin with some central training, since they
learn too slowly from nothing. A line that has not reached a stage's accuracy when its time is over
keeps what it has: `reached` in its description is the accuracy on 500 of the clients' images, and
the tables group by it too. What is kept depends on the machine's speed; what is prepared once is
the set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from confirmation_grid import CLIENTS, TARGETS, Line
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from rlu_cli.models import build_model
from rlu_cli.models.input_scaling import Normalisation, parse_normalisation
from rlu_cli.simulator.accuracy import accuracy_on
from rlu_cli.simulator.aggregate import average
from rlu_cli.simulator.client import copy_state, seeded, to_pixels
from rlu_cli.simulator.files import write_json, write_state
from rlu_cli.simulator.partition import partition

BATCH = 64
ADAM_RATE = 0.001  # of central training
RATES = {"lenet5": 0.01, "cnn": 0.01}  # of SGD with momentum, in FedAvg rounds
RATE, MOMENTUM, DECAY = 0.02, 0.9, 5e-4
HALF = ("cnn", "vgg16q")  # trained in bfloat16, which is faster for these
SAMPLE = 500  # images of the pool that accuracy is looked at on while training
LOOK = {"MNIST32": 640}  # images trained on between two looks
LOOK_OTHERS = 2560
TAKING_PART, LOCAL_STEPS = 2, 20  # clients of a FedAvg round, and batches of each
# Part of a line's time limit that a model may take; and before FedAvg rounds, part of that time
# and of the first target that central training may take.
PATIENCE = {"lenet5": 0.6, "cnn": 1.0, "vgg16q": 1.0, "resnet18": 1.5, "resnet18gn": 1.5}
WARM = {"lenet5": 0.0, "cnn": 0.3, "vgg16q": 0.3, "resnet18": 0.3, "resnet18gn": 0.3}
OWN_CODE = "resnet18gn.py"
GROUP_NORM = '''"""ResNet-18 with GroupNorm in place of BatchNorm."""

from torch import nn

from rlu_cli.models import build_model


def _replace(module):
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(min(32, child.num_features), child.num_features))
        else:
            _replace(child)


def Net(num_classes=10, head_bias=True):
    model = build_model(
        "resnet18", arguments={"num_classes": num_classes, "act": "relu", "head_bias": head_bias}
    )
    _replace(model)
    return model
'''

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def model_options(line: Line, work: Path) -> tuple[str, dict[str, Any]]:
    """The line's `--model` and its arguments; writes the file of a model that is not named."""
    if line.model == "resnet18gn":
        (work / OWN_CODE).write_text(GROUP_NORM)
        return f"{work / OWN_CODE}:Net", {"head_bias": line.head_bias}
    arguments: dict[str, Any] = {"act": line.act, "head_bias": line.head_bias}
    if line.model == "vgg16q":
        return "vgg16", {**arguments, "width": 0.25, "hidden": 512}
    return line.model, arguments


@dataclass
class Watch:
    """Keeps the stages of a line while it is trained.

    A stage is kept when its training accuracy is reached, or when its part of the time is over:
    half of it for the early stage where a late one follows.
    """

    line: Line
    folder: Path
    model: nn.Module
    images: Images
    labels: Labels
    normalise: Normalisation
    limit: float = 0.0
    wanted: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.process_time)
    seen: int = 0
    reached: float = 0.0

    def measure(self, trained_on: int) -> None:
        """Measure the accuracy. `trained_on`: images since before."""
        self.seen += trained_on
        self.reached = accuracy_on(self.model, self.images, self.labels, self.normalise)

    def look(self, trained_on: int) -> bool:
        """Measure, and keep what is due; whether more is wanted."""
        self.measure(trained_on)
        reached = self.reached
        seconds = time.process_time() - self.began
        while self.wanted:
            stage = self.wanted[0]
            target = TARGETS[self.line.data][stage]
            if reached < target and seconds < self.limit / len(self.wanted):
                break
            facts = {"target": target, "reached": reached, "seen": self.seen, "seconds": seconds}
            self.keep(stage, facts)
            self.wanted.pop(0)
        return bool(self.wanted)

    def is_warm_after(self, trained_on: int) -> bool:
        """Measure; whether central training has done its part of a line made by FedAvg."""
        self.measure(trained_on)
        return self.is_warm()

    def is_warm(self) -> bool:
        """Whether central training has nothing more to do for a line made by FedAvg."""
        part, target = WARM[self.line.model], TARGETS[self.line.data][self.wanted[0]]
        spent = (time.process_time() - self.began) / self.limit
        return part == 0 or spent >= part or self.reached >= part * target

    def keep(self, stage: str, facts: Mapping[str, Any]) -> None:
        """Write the model as it is now."""
        state = {name: value.contiguous() for name, value in copy_state(self.model).items()}
        name = f"{self.line.name}-{stage}"
        write_state(self.folder / f"{name}.pt", state)
        write_json(self.folder / f"{name}.json", {"global": name, **vars(self.line), **facts})
        print(f"{name} {self.line.data} {self.line.model} {self.line.way}: {facts}", flush=True)


def train_line(line: Line, work: Path, images: Images, labels: Labels, limit: float) -> None:
    """Train a line on the clients' images, and write its stages to WORK/globals.

    images, labels  (n, H, H, 3) uint8, (n,): of all clients together
    limit           seconds of processor time
    """
    reference, arguments = model_options(line, work)
    with seeded((line.seed, 3), torch.device("cpu")):
        model = build_model(reference, arguments=arguments, classes=int(labels.max()) + 1)
    rng = np.random.default_rng((line.seed, 12))
    some = rng.permutation(len(labels))[:SAMPLE]
    normalise = parse_normalisation("half")
    watch = Watch(line, work / "globals", model, images[some], labels[some], normalise)
    watch.limit = limit * PATIENCE[line.model]
    if "untrained" in line.stages:
        watch.keep("untrained", {"target": None, "reached": None, "seen": 0, "seconds": 0})
    watch.wanted = [stage for stage in ("early", "late") if stage in line.stages]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train = _train_centrally if line.way == "central" else _train_by_fedavg
    with seeded((line.seed, 7), torch.device("cpu")):
        if watch.wanted:
            train(watch, images, labels, rng)


def _train_centrally(
    watch: Watch, images: Images, labels: Labels, rng: np.random.Generator, *, warm: bool = False
) -> None:
    """Adam on all clients' images; `warm`: only until FedAvg rounds may begin."""
    step = _stepper(watch, _central_optimiser(watch))
    every = LOOK.get(watch.line.data, LOOK_OTHERS)
    since = 0
    while True:
        for batch in _batches(rng.permutation(len(labels))):
            step(images[batch], labels[batch])
            since += len(batch)
            if since >= every:
                more = not watch.is_warm_after(since) if warm else watch.look(since)
                if not more:
                    return
                since = 0


def _train_by_fedavg(
    watch: Watch, images: Images, labels: Labels, rng: np.random.Generator
) -> None:
    """Rounds in which some of the clients take part, each with a few batches of its images."""
    line, model = watch.line, watch.model
    if not watch.is_warm():
        _train_centrally(watch, images, labels, rng, warm=True)
    owned = partition(labels, CLIENTS, line.alpha, 500, line.seed).owned
    while watch.wanted:
        start, sent = copy_state(model), []
        for client in rng.choice(CLIENTS, TAKING_PART, replace=False):
            model.load_state_dict(start)
            step = _stepper(watch, _local_optimiser(watch))  # its momentum starts empty
            own = np.concatenate([rng.permutation(owned[client]) for _ in range(4)])
            for batch in list(_batches(own))[:LOCAL_STEPS]:
                step(images[batch], labels[batch])
            sent.append(copy_state(model))
        model.load_state_dict(average(sent, [1] * len(sent)))
        watch.look(TAKING_PART * LOCAL_STEPS * BATCH)


def _central_optimiser(watch: Watch) -> torch.optim.Optimizer:
    return torch.optim.Adam(watch.model.parameters(), lr=ADAM_RATE, fused=True)


def _local_optimiser(watch: Watch) -> torch.optim.Optimizer:
    rate = RATES.get(watch.line.model, RATE)
    parameters = watch.model.parameters()
    return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=DECAY, fused=True)


def _stepper(watch: Watch, optimiser: torch.optim.Optimizer) -> Callable[[Images, Labels], None]:
    """A function that takes one step of the optimiser on a batch."""
    model, normalise, name = watch.model, watch.normalise, watch.line.model

    def step(images: Images, labels: Labels) -> None:
        model.train()
        pixels = normalise(to_pixels(images, model)).contiguous(memory_format=torch.channels_last)
        with _precision(name):
            logits = model(pixels).float()
        loss = functional.cross_entropy(logits, torch.as_tensor(labels))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


@contextmanager
def _precision(model: str) -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16, enabled=model in HALF):
        yield


def _batches(order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Whole batches of an order of images."""
    for start in range(0, len(order) - BATCH + 1, BATCH):
        yield order[start : start + BATCH]


def complete(line: Line, work: Path) -> bool:
    """Whether every stage of the line is on disk."""
    return all((work / "globals" / f"{line.name}-{s}.json").exists() for s in line.stages)
