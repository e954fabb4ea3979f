"""Centralised training before the first round, which gives a trained global model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from rlu_cli.errors import InputError
from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.simulator.accuracy import accuracy_on
from rlu_cli.simulator.client import seeded, to_pixels

LR, MOMENTUM, DECAY, BATCH = 0.05, 0.9, 5e-4, 128
OWN_LR = {"cnn": 0.02, "lenet5": 0.02}  # by the name of the architecture
OWN_CHECKS = {"lenet5": 8}  # per epoch, for a model that learns its images in one or two
EPOCHS = 200


@dataclass(frozen=True)
class Pretraining:
    """Result: target and reached training accuracy in evaluation mode, and epochs started."""

    target: float
    reached: float
    epochs: int


def pretrain(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    target: float,
    lr: float,
    normalise: Normalisation,
    seed: tuple[int, ...],
    checks: int = 1,
    progress: Callable[[str], None] = lambda text: None,
) -> Pretraining:
    """SGD on all images until the first check with a training accuracy of at least `target`.

    model     trained in place, counters of BatchNorm included
    images    (n, H, H, 3) uint8, the clients' images together; labels (n,)
    seed      of shuffles and dropout
    checks    of the accuracy per epoch, the last at its end
    progress  called with messages
    Raises InputError E241 when 200 epochs are not enough.
    """
    device = next(model.parameters()).device
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=DECAY)
    reached = 0.0
    with seeded(seed, device):
        for epoch in range(1, EPOCHS + 1):
            for part in _parts(rng.permutation(len(labels)), checks):
                _train_on(model, optimiser, images, labels, normalise, part)
                reached = accuracy_on(model, images, labels, normalise)
                progress(f"pretraining, epoch {epoch}: training accuracy {reached:.3f}")
                if reached >= target:
                    return Pretraining(target, reached, epoch)
    raise not_reached(f"{EPOCHS} epochs of pretraining", target, reached)


def not_reached(where: str, target: float, reached: float) -> InputError:
    return InputError(
        "E241",
        f"after {where} the training accuracy is {reached:.3f}, not {target:g}",
        hint="lower the target, or use another model or other images",
    )


def _parts(order: NDArray[np.int64], checks: int) -> list[NDArray[np.int64]]:
    """An epoch's images in order, cut into whole batches for each check."""
    batches = -(-len(order) // BATCH)
    cuts = sorted({BATCH * (batches * k // checks) for k in range(1, checks)} - {0})
    return np.split(order, cuts)


def _train_on(
    model: nn.Module,
    optimiser: torch.optim.SGD,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalise: Normalisation,
    order: NDArray[np.int64],
) -> None:
    device = next(model.parameters()).device
    model.train()
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        if len(batch) == 1 < len(order):
            break  # BatchNorm cannot train on a single image
        logits = model(normalise(to_pixels(images[batch], model)))
        loss = functional.cross_entropy(logits, torch.tensor(labels[batch], device=device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
