"""A tiny labelled federation, and what the tests ask of a command's outcome."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlu_cli.simulator import images
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.simulation import Request, prepare

State = Mapping[str, Tensor]
CLASSES, BATCH, STEPS, RATE = 10, 8, 2, 0.01
DRAWS = 200


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        assert self.status in (0, 4), self.err  # an unreliable answer is reported too
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    @property
    def counts(self) -> list[int | None]:
        return [row["count"] for row in self.report["result"]["counts"]]


Command = Callable[..., Outcome]  # `rlu` with these words
Words = list[str]
Refused = Callable[..., str]  # the error that a command must end in
Files = Callable[..., Words]  # an attack on these two states


@dataclass(frozen=True)
class World:
    """run: the simulator's folder; the pair is copied to where no settings lie beside it."""

    run: Path
    aux: Path
    before: Path
    after: Path
    counts: list[int]

    @property
    def pair(self) -> list[str]:
        return ["--global", str(self.before), "--local", str(self.after)]

    @property
    def told(self) -> list[str]:
        return [
            *("--lr", str(RATE), "--epochs", str(STEPS), "--batch-size", str(BATCH)),
            *("--model-arg", "act=relu", "--normalize", "half", "--draws", str(DRAWS)),
        ]

    def state(self, path: Path) -> dict[str, Tensor]:
        loaded: dict[str, Tensor] = torch.load(path, weights_only=True)
        return loaded

    @property
    def states(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.state(self.before), self.state(self.after)


def simulated(folder: Path) -> World:
    run, bare = folder / "run", folder / "bare"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "TRAIN_PER_CLASS", 20)
        patch.setattr(images, "TEST_PER_CLASS", 6)
        plan = Plan(clients=3, batch_size=BATCH, epochs=STEPS, lr=RATE, only=(1,))
        request = Request(plan, torch.device("cpu"), aux_per_class=4)
        assert len(list(prepare(request, run).rounds())) == 1
    bare.mkdir()
    before, after = bare / "g.pt", bare / "c.pt"
    shutil.copy(run / "r000" / "global.pt", before)
    shutil.copy(run / "r000" / "c1.pt", after)
    truth = json.loads((run / "r000" / "c1.truth.json").read_text("utf-8"))
    return World(run, run / "aux", before, after, truth["counts"])


def write_pair(
    folder: Path, before: object, after: object, save: Any = torch.save
) -> tuple[str, str, str, str]:
    """Both states, or what a trainer saves in their place, as g.pt and c.pt, and their options."""
    folder.mkdir(exist_ok=True)
    save(before, folder / "g.pt")
    save(after, folder / "c.pt")
    return "--global", str(folder / "g.pt"), "--local", str(folder / "c.pt")


def trained_client(
    build: Callable[[], nn.Module], *, warm: int = 0, steps: int = STEPS
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[int]]:
    """A model after `warm` steps on even batches, and after a client's round on a skewed one."""
    torch.manual_seed(0)
    model, optimiser = build().train(), None
    pixels, labels = draw_digits(60, seed=1)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    classes = torch.from_numpy(labels)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(warm):
        _step(model, optimiser, shown, classes, torch.randint(len(classes), (64,)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
    skew = torch.from_numpy(np.random.default_rng(3).dirichlet(np.full(CLASSES, 0.5)))[classes]
    total = torch.zeros(CLASSES, dtype=torch.int64)
    for _ in range(steps):
        batch = torch.multinomial(skew, BATCH)
        _step(model, optimiser, shown, classes, batch)
        total += torch.bincount(classes[batch], minlength=CLASSES)
    return before, dict(model.state_dict()), [int(n) for n in total]


def _step(
    model: nn.Module, optimiser: torch.optim.SGD, shown: Tensor, classes: Tensor, batch: Tensor
) -> None:
    optimiser.zero_grad()
    loss = nn.functional.cross_entropy(model(shown[batch]), classes[batch])
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
