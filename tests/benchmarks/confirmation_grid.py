"""What the confirmation set is: its grid, and the fixed random draw from it.

Global models are drawn first, as lines: one training of one model, of which several stages are
kept. Cases are drawn over them afterwards. Every property is dealt from a shuffled deck that holds
each of its values equally often, so that every group of the tables has cases.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

Value = TypeVar("Value")

DATA = ("CIFAR10", "CIFAR100", "MNIST32", "TINY200")
FEWER_MANY = (*DATA, *DATA, "CIFAR10", "CIFAR10", "MNIST32", "CIFAR100")
MODELS = ("lenet5", "cnn", "vgg16q", "resnet18", "resnet18gn")
SMALL = ("lenet5", "cnn")
WAYS = ("central", "fedavg")
ACTIVATIONS = ("relu", "relu", "silu", "tanh")
STAGES = ("untrained", "early", "late")
# Training accuracy of the stages; a hundred classes or more take too long to learn to 90 %.
TARGETS = {name: {"early": 0.6, "late": 0.9} for name in DATA}
MANY = {"CIFAR100", "TINY200"}
TARGETS |= {name: {"early": 0.3, "late": 0.5} for name in MANY}
ALPHAS = (0.05, 0.1, 0.5, 5.0, 100.0)
FEDAVG_ALPHAS = (0.5, 5.0, 100.0)  # of the federation that made a global model
BATCHES = (16, 64)
ROUNDS = {  # options of `simulate`: one batch, ten batches, three passes over 500 images
    "1 batch": {"epochs": 1},
    "10 batches": {"epochs": 10},
    "3 passes": {"epochs": 3, "samples": 500},
}
IMAGES = ("100", "20", "5", "other origin")
CLIENTS = 5


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    seeds   of federations
    lines   number of global models that are trained
    stages  kept of each
    draw    seed of the draw
    data    the deck that the lines' data are dealt from
    """

    seeds: tuple[int, ...]
    lines: int
    stages: int
    cases: int
    draw: int
    data: tuple[str, ...] = DATA


SETS = {
    "confirmation": Size(
        (100, 101, 102, 103), lines=12, stages=3, cases=150, draw=1, data=FEWER_MANY
    ),
    # Drawn when the first had been run and looked at: other seeds, the data sets of ten classes.
    "second": Size(
        (104, 105, 106, 107), lines=10, stages=3, cases=100, draw=3, data=("CIFAR10", "MNIST32")
    ),
    "development": Size(tuple(range(10)), lines=5, stages=2, cases=30, draw=2),
}


@dataclass(frozen=True)
class Line:
    """One training of a global model.

    seed       of the federation: initial weights, images of clients and server, partition
    head_bias  whether the output layer has a bias
    way        "central" or "fedavg"
    alpha      of the clients whose averages made it
    """

    name: str
    seed: int
    data: str
    model: str
    act: str
    head_bias: bool
    way: str
    alpha: float
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """One client to attack.

    stage      of the line that its global model is
    round      key of `ROUNDS`
    images     of `IMAGES`: what the server holds
    recognise  whether the activation is left to be recognised
    """

    name: str
    line: Line
    stage: str
    alpha: float
    batch_size: int
    round: str
    images: str
    recognise: bool
    client: int

    @property
    def lr(self) -> float:
        """Learning rate of the client."""
        return 0.05 if self.line.model == "lenet5" and self.round == "3 passes" else 0.01

    @property
    def global_name(self) -> str:
        """Name of its global model."""
        return f"{self.line.name}-{self.stage}"

    def facts(self) -> dict[str, Any]:
        """What is recorded of the case, flat."""
        line = {k: v for k, v in vars(self.line).items() if k not in ("name", "alpha", "stages")}
        own = {k: v for k, v in vars(self).items() if k not in ("name", "line")}
        return {"case": self.name, "global": self.global_name, **line, **own, "lr": self.lr}


def draw(name: str) -> list[Case]:
    """The cases of a set, always the same."""
    size = SETS[name]
    rng = random.Random(size.draw)
    lines = _lines(size, rng)
    while not _sensible(lines, size):
        lines = _lines(size, rng)
    globals_ = [(line, stage) for line in lines for stage in line.stages]
    rows = zip(
        _deal(globals_, size.cases, rng),
        _deal(ALPHAS, size.cases, rng),
        _deal(BATCHES, size.cases, rng),
        _deal(tuple(ROUNDS), size.cases, rng),
        _deal(IMAGES, size.cases, rng),
        _deal((True, False), size.cases, rng),
        _deal(range(CLIENTS), size.cases, rng),
        strict=True,
    )
    return [_case(number, *row) for number, row in enumerate(rows)]


def _case(
    number: int,
    model: tuple[Line, str],
    alpha: float,
    batch: int,
    taken: str,
    images: str,
    recognise: bool,
    client: int,
) -> Case:
    line, stage = model
    open_ = recognise and line.model != "resnet18gn"  # a user's own code has nothing to recognise
    return Case(f"case{number:03d}", line, stage, alpha, batch, taken, images, open_, client)


def _lines(size: Size, rng: random.Random) -> list[Line]:
    count = size.lines
    rows = zip(
        _deal(size.seeds, count, rng),
        _deal(size.data, count, rng),
        _deal(MODELS, count, rng),
        _deal(ACTIVATIONS, count, rng),
        _deal((True, False), count, rng),
        _deal(WAYS, count, rng),
        _deal(FEDAVG_ALPHAS, count, rng),
        _deal(tuple(combinations(STAGES, size.stages)), count, rng),
        strict=True,
    )
    return [_line(number, *row) for number, row in enumerate(rows)]


def _line(
    number: int, seed: int, data: str, model: str, act: str, bias: bool, way: str, alpha: float,
    stages: tuple[str, ...],
) -> Line:  # fmt: skip
    act = "relu" if model == "resnet18gn" else act
    return Line(f"line{number:02d}", seed, data, model, act, bias, way, alpha, stages)


def _sensible(lines: Sequence[Line], size: Size) -> bool:
    """Whether the lines of a model that has several differ in way of training and head bias and
    all in data, one of them with ten classes, and whether only one large model, made centrally, has
    a hundred classes or more to learn, which takes long.
    """
    if size.lines < 2 * len(MODELS):
        return True
    for model in MODELS:
        own = [line for line in lines if line.model == model]
        data, ways = {line.data for line in own}, {line.way for line in own}
        heads = {line.head_bias for line in own}
        if len(data) < len(own) or len(ways) == 1 or len(heads) == 1 or data <= MANY:
            return False
    hard = [line for line in lines if line.data in MANY and line.model not in SMALL]
    return len(hard) <= 1 and all(line.way == "central" for line in hard)


def _deal(values: Sequence[Value], count: int, rng: random.Random) -> list[Value]:
    """`count` of the values in random order, each as often as any other, give or take one."""
    cards = list(values) * (count // len(values)) + rng.sample(list(values), count % len(values))
    rng.shuffle(cards)
    return cards
