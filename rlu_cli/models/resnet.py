"""Residual networks (He et al., 2015) under torchvision's names, so that its files load.

Keys: conv1, bn1, layerI.J.convK, layerI.J.bnK, layerI.J.downsample.0 (1x1 convolution) and .1
(BatchNorm) where the shape changes, fc. `resnet32` is the CIFAR form: a 3x3 stem without pooling,
three stages instead of four, and the same names; its shortcuts are convolutions too (option B).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from rlu_cli.models.activations import ACTIVATIONS
from rlu_cli.models.architecture import Architecture, Shapes
from rlu_cli.models.initial import kaiming_convolutions


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one strides."""

    expansion = 1

    def __init__(self, inward: int, width: int, stride: int, act: str) -> None:
        super().__init__()
        self.conv1 = _conv(inward, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inward, width, stride)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.act(y + self.downsample(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut; the 3x3 strides (torchvision's "v1.5")."""

    expansion = 4

    def __init__(self, inward: int, width: int, stride: int, act: str) -> None:
        super().__init__()
        outward = width * self.expansion
        self.conv1 = _conv(inward, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outward, 1)
        self.bn3 = nn.BatchNorm2d(outward)
        self.downsample = _shortcut(inward, outward, stride)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.act(y + self.downsample(x))
        return out


Block = type[BasicBlock] | type[Bottleneck]


def imagenet_resnet(
    block: Block,
    depths: Sequence[int],
    *,
    act: str = "relu",
    in_channels: int = 3,
    num_classes: int = 10,
) -> nn.Module:
    """Logits (B, N) from images (B, in_channels, H, W): 7x7 stem, max-pool, stages of 64…512."""
    stem: dict[str, nn.Module] = {
        "conv1": _conv(in_channels, 64, 7, 2),
        "bn1": nn.BatchNorm2d(64),
        "act": ACTIVATIONS[act](),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    return _network(stem, block, (64, 128, 256, 512), depths, act, num_classes)


def resnet32(*, act: str = "relu", in_channels: int = 3, num_classes: int = 10) -> nn.Module:
    """Logits (B, N) from images (B, in_channels, H, W): 3x3 stem, stages of 16, 32, 64."""
    stem: dict[str, nn.Module] = {
        "conv1": _conv(in_channels, 16, 3),
        "bn1": nn.BatchNorm2d(16),
        "act": ACTIVATIONS[act](),
    }
    return _network(stem, BasicBlock, (16, 32, 64), (5, 5, 5), act, num_classes)


def infer(shapes: Shapes) -> dict[str, Any]:
    """Channels and classes; global pooling hides the image size."""
    return {"in_channels": shapes["conv1.weight"][1], "num_classes": shapes["fc.weight"][0]}


def _network(
    stem: dict[str, nn.Module],
    block: Block,
    widths: Sequence[int],
    depths: Sequence[int],
    act: str,
    classes: int,
) -> nn.Module:
    layers = OrderedDict(stem)
    inward = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        blocks: list[nn.Module] = []
        for index in range(depth):
            stride = 2 if stage > 1 and index == 0 else 1
            blocks.append(block(inward, width, stride, act))
            inward = width * block.expansion
        layers[f"layer{stage}"] = nn.Sequential(*blocks)
    layers |= {
        "avgpool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(inward, classes),
    }
    return kaiming_convolutions(nn.Sequential(layers))


def _conv(inward: int, outward: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inward, outward, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inward: int, outward: int, stride: int) -> nn.Module:
    if stride == 1 and inward == outward:
        return nn.Identity()
    return nn.Sequential(_conv(inward, outward, 1, stride), nn.BatchNorm2d(outward))


OPTIONS = {"act": tuple(ACTIVATIONS), "in_channels": (3,), "num_classes": (10,)}

RESNET18 = Architecture(
    name="resnet18",
    summary="ResNet-18, torchvision's names and shapes",
    build=partial(imagenet_resnet, BasicBlock, (2, 2, 2, 2)),
    options=OPTIONS,
    infer=infer,
    fixed=True,
)
RESNET32 = Architecture(
    name="resnet32",
    summary="ResNet-32 for CIFAR-sized images (16, 32, 64 channels), convolution shortcuts",
    build=resnet32,
    options=OPTIONS,
    infer=infer,
)
RESNET50 = Architecture(
    name="resnet50",
    summary="ResNet-50, torchvision's names and shapes (stride in the 3x3)",
    build=partial(imagenet_resnet, Bottleneck, (3, 4, 6, 3)),
    options=OPTIONS,
    infer=infer,
    fixed=True,
)
