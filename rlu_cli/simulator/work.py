"""What a round of a federation works on, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.simulator.partition import Partition
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.pretrain import LR
from rlu_cli.simulator.run_folder import RunFolder


@dataclass(frozen=True)
class Federation:
    """Everything a round needs besides the weights."""

    plan: Plan
    holding: Holding
    partition: Partition
    normalise: Normalisation
    device: torch.device
    pretrain_lr: float = LR
    pretrain_checks: int = 1

    def own(self, client: int) -> NDArray[np.int64]:
        """The images a client uses: all that it owns, or the plan's number of them."""
        owned, samples = self.partition.owned[client], self.plan.local.samples
        if samples is None:
            return owned
        rng = np.random.default_rng((self.plan.seed, 6, client))
        return np.sort(rng.permutation(owned)[:samples])


@dataclass(frozen=True)
class Round:
    """One round that is complete on disk.

    accuracy        of the global model the round started from, on the test images
    reused          how many clients were on disk already
    clients         who was trained; nobody for the model that the last round left
    train_accuracy  of that global model on the clients' images, where the plan asks for it
    """

    number: int
    accuracy: float
    reused: int
    clients: tuple[int, ...] = ()
    train_accuracy: float | None = None


@dataclass(frozen=True)
class Work:
    """A federation under way: one model that takes every role in turn, and the folder."""

    federation: Federation
    model: nn.Module
    run: RunFolder
    tick: Callable[[int], None]

    @property
    def plan(self) -> Plan:
        return self.federation.plan
