"""Input and result of a federation's rounds."""

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
    """Everything that a round needs besides the weights.

    pretrain_lr      learning rate of pretraining
    pretrain_checks  accuracy checks per epoch of pretraining
    """

    plan: Plan
    holding: Holding
    partition: Partition
    normalise: Normalisation
    device: torch.device
    pretrain_lr: float = LR
    pretrain_checks: int = 1

    def own(self, client: int) -> NDArray[np.int64]:
        """Indices of the images a client trains on: all it owns, or `local.samples` of them."""
        owned, samples = self.partition.owned[client], self.plan.local.samples
        if samples is None:
            return owned
        rng = np.random.default_rng((self.plan.seed, 6, client))
        return np.sort(rng.permutation(owned)[:samples])


@dataclass(frozen=True)
class Round:
    """One round that is complete on disk.

    accuracy        of the global model the round started from, on the test images
    reused          number of clients that were already on disk
    clients         the clients trained; empty for the global model after the last round
    train_accuracy  of that global model on the clients' images; None unless the plan asks for it
    """

    number: int
    accuracy: float
    reused: int
    clients: tuple[int, ...] = ()
    train_accuracy: float | None = None


@dataclass(frozen=True)
class Work:
    """A running federation: one model, which every client uses in turn, and the run folder."""

    federation: Federation
    model: nn.Module
    run: RunFolder
    tick: Callable[[int], None]

    @property
    def plan(self) -> Plan:
        return self.federation.plan
