"""A small plain CNN, as used for CIFAR-sized images in many federated-learning examples."""

from __future__ import annotations

from collections import OrderedDict
from math import isqrt
from typing import Any

from torch import nn

from rlu_cli.models.activations import ACTIVATIONS
from rlu_cli.models.architecture import Architecture, Shapes
from rlu_cli.models.sides import likely_side


def cnn(
    *, act: str = "relu", in_channels: int = 3, num_classes: int = 10, size: int = 32
) -> nn.Module:
    """Logits (B, N) from images (B, in_channels, size, size): four convolutions, two layers."""
    activation = ACTIVATIONS[act]
    if size < 8:
        raise ValueError(f"cnn needs images of 8 pixels or more, not {size}")
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_channels, 32, 3, padding=1),
        "act1": activation(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(32, 64, 3, padding=1),
        "act2": activation(),
        "pool2": nn.MaxPool2d(2),
        "conv3": nn.Conv2d(64, 128, 3, padding=1),
        "act3": activation(),
        "conv4": nn.Conv2d(128, 128, 3, padding=1),
        "act4": activation(),
        "pool3": nn.MaxPool2d(2),
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(128 * (size // 8) ** 2, 256),
        "act5": activation(),
        "fc2": nn.Linear(256, num_classes),
    }
    return nn.Sequential(OrderedDict(layers))


def infer(shapes: Shapes) -> dict[str, Any]:
    """Channels, classes and the likely image size under which fc1 has this many inputs."""
    side = isqrt(shapes["fc1.weight"][1] // 128)
    return {
        "in_channels": shapes["conv1.weight"][1],
        "num_classes": shapes["fc2.weight"][0],
        "size": likely_side(8 * side, 8),
    }


CNN = Architecture(
    name="cnn",
    summary="four 3x3 convolutions (32, 64, 128, 128) with max-pooling, then 256, N",
    build=cnn,
    options={
        "act": tuple(ACTIVATIONS),
        "in_channels": (3,),
        "num_classes": (10,),
        "size": (32,),
    },
    infer=infer,
)
