"""LeNet-5 as the authors use it: max-pooling, 32x32 RGB, PyTorch's default initialisation."""

from __future__ import annotations

from collections import OrderedDict
from math import isqrt
from typing import Any

from torch import nn

from rlu_cli.models.activations import ACTIVATIONS
from rlu_cli.models.architecture import Architecture, Shapes
from rlu_cli.models.sides import likely_side


def lenet5(
    *, act: str = "relu", in_channels: int = 3, num_classes: int = 10, size: int = 32
) -> nn.Module:
    """Logits (B, N) from images (B, in_channels, size, size): two convolutions, three layers."""
    activation = ACTIVATIONS[act]
    side = ((size - 4) // 2 - 4) // 2
    if side < 1:
        raise ValueError(f"lenet5 needs images of 16 pixels or more, not {size}")
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, 6, 5),
        "act1": activation(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "act2": activation(),
        "pool2": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(16 * side**2, 120),
        "act3": activation(),
        "fc2": nn.Linear(120, 84),
        "act4": activation(),
        "fc3": nn.Linear(84, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


def infer(shapes: Shapes) -> dict[str, Any]:
    """Channels, classes and the likely image size under which fc1 has this many inputs."""
    side = isqrt(shapes["fc1.weight"][1] // 16)
    return {
        "in_channels": shapes["conv1.weight"][1],
        "num_classes": shapes["fc3.weight"][0],
        "size": likely_side(4 * side + 12, 4),
    }


LENET5 = Architecture(
    name="lenet5",
    summary="LeNet-5: two 5x5 convolutions (6, 16) with max-pooling, then 120, 84, N",
    build=lenet5,
    options={
        "act": tuple(ACTIVATIONS),
        "in_channels": (3,),
        "num_classes": (10,),
        "size": (32,),
    },
    infer=infer,
)
