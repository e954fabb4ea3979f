"""Table of named architectures, and recognition of a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlu_cli.models.architecture import Architecture
from rlu_cli.models.cnn import CNN
from rlu_cli.models.head_bias import with_head_bias
from rlu_cli.models.lenet import LENET5
from rlu_cli.models.resnet import RESNET18, RESNET32, RESNET50
from rlu_cli.models.vgg import VGG16

ARCHITECTURES: dict[str, Architecture] = {
    "lenet5": with_head_bias(LENET5, "fc3"),
    "cnn": with_head_bias(CNN, "fc2"),
    "vgg16": with_head_bias(VGG16, "classifier.6"),
    "resnet18": with_head_bias(RESNET18, "fc"),
    "resnet32": with_head_bias(RESNET32, "fc"),
    "resnet50": with_head_bias(RESNET50, "fc"),
}


@dataclass(frozen=True)
class Candidate:
    """An architecture that has exactly the keys and shapes of a state dict.

    arguments  arguments that keys and shapes determine
    open       the other options, each with the values to try, the default first
    """

    name: str
    arguments: dict[str, Any]
    open: dict[str, tuple[Any, ...]]


def recognise(state: Mapping[str, Tensor]) -> list[Candidate]:
    """Every known architecture that fits `state` key for key and shape for shape."""
    found = []
    for name, architecture in ARCHITECTURES.items():
        arguments = architecture.read(state)
        if arguments is not None:
            others = {k: v for k, v in architecture.options.items() if k not in arguments}
            found.append(Candidate(name, arguments, others))
    return found
