"""VGG-16 in the authors' 32x32 form; at `size=224` its keys and shapes are torchvision's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from math import isqrt
from typing import Any

from torch import nn

from rlu_cli.models.activations import ACTIVATIONS
from rlu_cli.models.architecture import Architecture, Shapes
from rlu_cli.models.initial import kaiming_convolutions
from rlu_cli.models.sides import likely_side

# (channels, convolutions) of each stage; a max-pool ends each.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
WIDEST = 512

NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    "batch": lambda channels: [nn.BatchNorm2d(channels)],
    "none": lambda channels: [],
    "group": lambda channels: [nn.GroupNorm(_groups(channels), channels)],
}


def vgg16(
    *,
    act: str = "relu",
    norm: str = "batch",
    width: float = 1.0,
    hidden: int = 4096,
    dropout: float = 0.5,
    in_channels: int = 3,
    num_classes: int = 10,
    size: int = 32,
) -> nn.Module:
    """Logits (B, N) from images (B, in_channels, size, size): 13 convolutions, three layers.

    width scales every convolution's channels, rounding down; hidden is the classifier's width.
    """
    if size < 32 or int(64 * width) < 1:
        raise ValueError(f"vgg16 cannot be built with size={size}, width={width}: too small")
    inputs = int(WIDEST * width) * (size // 32) ** 2
    network = nn.Sequential(
        OrderedDict[str, nn.Module](
            features=_features(act, norm, width, in_channels),
            flatten=nn.Flatten(),
            classifier=_classifier(act, inputs, hidden, dropout, num_classes),
        )
    )
    return kaiming_convolutions(network)


def infer(shapes: Shapes) -> dict[str, Any]:
    """Everything but the activation and the dropout rate.

    The width comes from the convolution with most channels, whose rounding is the finest.
    """
    widest = max(s[0] for name, s in shapes.items() if name.startswith("features.") and len(s) == 4)
    side = isqrt(shapes["classifier.0.weight"][1] // widest)
    return {
        "norm": _norm(shapes),
        "width": widest / WIDEST,
        "hidden": shapes["classifier.0.weight"][0],
        "in_channels": shapes["features.0.weight"][1],
        "num_classes": shapes["classifier.6.weight"][0],
        "size": likely_side(32 * side, 32),
    }


def _features(act: str, norm: str, width: float, in_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, convolutions in STAGES:
        out = int(channels * width)
        for _ in range(convolutions):
            convolution = nn.Conv2d(in_channels, out, 3, padding=1)
            layers += [convolution, *NORMS[norm](out), ACTIVATIONS[act]()]
            in_channels = out
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _classifier(act: str, inputs: int, hidden: int, dropout: float, classes: int) -> nn.Sequential:
    activation = ACTIVATIONS[act]
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        activation(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        activation(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )


def _groups(channels: int) -> int:
    """32 groups, or the most below that which divide the channels."""
    return next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)


def _norm(shapes: Shapes) -> str:
    if "features.1.running_mean" in shapes:
        return "batch"
    return "group" if "features.1.weight" in shapes else "none"


VGG16 = Architecture(
    name="vgg16",
    summary="VGG-16 for 32x32 images, three-layer classifier; the authors' has BatchNorm",
    build=vgg16,
    options={
        "act": tuple(ACTIVATIONS),
        "norm": tuple(NORMS),
        "width": (1.0,),
        "hidden": (4096,),
        "dropout": (0.5,),
        "in_channels": (3,),
        "num_classes": (10,),
        "size": (32,),
    },
    infer=infer,
)
