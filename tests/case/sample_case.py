"""The sample pair and small made-up ones, to build cases from without any training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.types import Auxiliary, Checkpoint

SAMPLE = Path(__file__).parents[2] / "sample_data"
COUNTS = [15, 1, 123, 3, 63, 7, 7, 49, 2, 50]  # of the client, in sample_data/c3.truth.json
CLASSES = tuple(map(str, range(10)))

State = dict[str, Tensor]


@cache
def _loaded(name: str) -> Mapping[str, Tensor]:
    loaded: Mapping[str, Tensor] = torch.load(SAMPLE / name, weights_only=True)
    return loaded


def sample_states() -> tuple[State, State]:
    """The global and the client's LeNet-5, as fresh dicts of the same tensors."""
    return dict(_loaded("g.pt")), dict(_loaded("c3.pt"))


def blank_images(classes: int = 10, size: int = 32) -> Auxiliary:
    """Two black images a class; no case looks at what they show."""
    return Auxiliary(
        images=torch.zeros(2 * classes, 3, size, size),
        labels=torch.arange(classes).repeat_interleave(2),
        class_names=tuple(map(str, range(classes))),
        source="made up",
        sha256="",
    )


def counted_pair(*counters: tuple[float, float], whole: bool = True) -> CheckpointPair:
    """A layer of two classes behind BatchNorm layers with these counters before and after.

    whole  whether the counters are kept as whole numbers, as PyTorch does
    """

    def checkpoint(end: int) -> Checkpoint:
        state: State = {"fc.weight": torch.full((2, 2), float(end)), "fc.bias": torch.zeros(2)}
        for number, values in enumerate(counters):
            counter = torch.tensor(values[end])
            state[f"bn{number}.num_batches_tracked"] = counter.long() if whole else counter
        return Checkpoint(Path(f"{end}.pt"), f"{end}", "in memory", state)

    return CheckpointPair(checkpoint(0), checkpoint(1), "fc")
