"""Logits of the clients' own images under a global model, in the clients' training mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlu_cli.checkpoints import find_output_layer
from rlu_cli.evidence.forward import ForwardConfig, outputs
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.simulation import Simulation
from rlu_cli.types import Auxiliary, Outputs

PART = 4096  # images at a time: all embeddings of a wide model would not fit in memory


@dataclass(frozen=True)
class Logits:
    """Logits (n, N) of all training images, float32 on the CPU, and their labels (n,)."""

    values: Tensor
    labels: Tensor

    def panel(self, true: int, component: int) -> Tensor:
        """Logit `component` of the images of class `true`, (n_true,)."""
        return self.values[self.labels == true, component]


def training_logits(simulation: Simulation) -> Logits:
    """Logits of the clients' images under the global model of round 0.

    The model is in training mode with batches of |B|, so dropout and batch statistics are as in a
    client's steps; the run's seed shuffles the images.
    """
    federation, run = simulation.federation, simulation.run
    plan, holding = federation.plan, federation.holding
    state, model = run.require_global(0), simulation.factory()
    config = ForwardConfig(
        layer=find_output_layer(state, classes=len(holding.class_names)),
        normalise=federation.normalise,
        training=True,
        batch=plan.batch_size,
        device=federation.device,
        seed=plan.seed,
    )
    order = np.random.default_rng((plan.seed, 8)).permutation(len(holding.client_labels))
    size = max(PART // plan.batch_size, 1) * plan.batch_size
    batches = [
        _kept(outputs(model, state, images, config, run.global_file(0)))
        for images in _in_parts(holding, order, size)
    ]
    values, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return Logits(values, labels)


def _kept(part: Outputs) -> tuple[Tensor, Tensor]:
    return part.logits.cpu(), part.labels.cpu()


def _in_parts(holding: Holding, order: NDArray[np.int64], size: int) -> Iterator[Auxiliary]:
    """The clients' images in the given order, `size` at a time, as labelled images."""
    for start in range(0, len(order), size):
        index = order[start : start + size]
        pixels = torch.from_numpy(holding.client_images[index]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(holding.client_labels[index])
        yield Auxiliary(pixels.float() / 255, labels, holding.class_names, "training images", "")
