"""`torchvision:NAME`: a classifier of torchvision, without pretrained weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from rlu_cli.models.source import Blueprint, ModelSource, package, unknown

_NO_AUX = "aux_logits"  # GoogLeNet's and Inception's auxiliary classifiers
_INITIAL = "init_weights"  # theirs too, and slow: the weights are loaded anyway


def build(blueprint: Blueprint) -> nn.Module:
    """Raises UsageError E101 for an unknown name, E107 without torchvision."""
    models = package("torchvision").models
    names = models.list_models(module=models)
    if blueprint.name not in names:
        raise unknown("torchvision", blueprint.name, names)
    given: dict[str, Any] = {}
    if blueprint.classes is not None:
        given["num_classes"] = blueprint.classes
    if blueprint.name in ("googlenet", "inception_v3"):
        given[_INITIAL] = False
        given[_NO_AUX] = blueprint.state is None or any("aux" in n.lower() for n in blueprint.state)
    arguments = {**given, **blueprint.arguments}
    model: nn.Module = models.get_model(blueprint.name, weights=None, **arguments)
    return model


SOURCE = ModelSource(
    "torchvision:NAME", "a classifier of torchvision, such as torchvision:resnet34", build
)
