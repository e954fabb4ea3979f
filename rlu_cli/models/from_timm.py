"""`timm:NAME`: a classifier of timm, without pretrained weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from rlu_cli.models.source import Blueprint, ModelSource, package, unknown


def build(blueprint: Blueprint) -> nn.Module:
    """Raises UsageError E101 for an unknown name, E107 without timm."""
    timm = package("timm")
    if not timm.is_model(blueprint.name):
        raise unknown("timm", blueprint.name, timm.list_models())
    arguments: dict[str, Any] = {**_adapted(blueprint), **blueprint.arguments}
    model: nn.Module = timm.create_model(blueprint.name, pretrained=False, **arguments)
    return model


def _adapted(blueprint: Blueprint) -> dict[str, Any]:
    """Classes, and channels of images that are not RGB."""
    found: dict[str, Any] = {}
    if blueprint.classes is not None:
        found["num_classes"] = blueprint.classes
    tensors = (blueprint.state or {}).values()
    channels = next((t.shape[1] for t in tensors if t.ndim == 4 and t.shape[1] > 1), 3)
    first = next((t.shape[1] for t in tensors if t.ndim == 4), channels)
    if first == 1:
        found["in_chans"] = 1
    return found


SOURCE = ModelSource("timm:NAME", "a classifier, such as timm:vit_tiny_patch16_224", build)
