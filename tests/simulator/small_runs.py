"""Small federations on disk, for the tests of what they write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator.client import State
from rlu_cli.simulator.export import open_run, write_description
from rlu_cli.simulator.federation import federate
from rlu_cli.simulator.partition import partition
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.work import Federation, Round


class Killed(BaseException):
    """Stands for a signal: nothing in the program catches it."""


def with_batch_norm() -> nn.Module:
    layers = (nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(196, 10))


def simulate(
    path: Path,
    holding: Holding,
    plan: Plan,
    *,
    factory: Callable[[], nn.Module] = with_batch_norm,
    force: bool = False,
    tick: Callable[[int], None] = lambda steps: None,
) -> list[Round]:
    labels = holding.client_labels
    least = max(plan.batch_size, plan.local.samples or 0)
    shares = partition(labels, plan.clients, plan.alpha, least, plan.seed)
    federation = Federation(plan, holding, shares, PRESETS["half"], torch.device("cpu"))
    run = open_run(path, plan.settings(), holding.class_names, force=force)
    write_description(run, {"lr": plan.lr, "classes": run.classes}, holding, {})
    return list(federate(federation, factory, run, tick=tick))


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def read(path: Path) -> State:
    state: State = torch.load(path, weights_only=True)
    return state
