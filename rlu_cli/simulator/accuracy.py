"""Accuracy of a model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.simulator.client import to_pixels

EVALUATION_BATCH = 256


def accuracy_on(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalise: Normalisation,
) -> float:
    """Share of images (n, H, H, 3) that a model in evaluation mode classifies correctly."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(labels), EVALUATION_BATCH):
            batch = slice(start, start + EVALUATION_BATCH)
            pixels = normalise(to_pixels(images[batch], model))
            predicted = model(pixels).argmax(dim=1).cpu().numpy()
            correct += int((predicted == labels[batch]).sum())
    return correct / len(labels)
