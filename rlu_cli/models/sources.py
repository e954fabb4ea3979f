"""Packages that models are built from by name, one file each, and their outputs made to fit."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rlu_cli.errors import InputError, RluError, printable
from rlu_cli.models import from_hf, from_timm, from_torchvision
from rlu_cli.models.source import Blueprint, ModelSource
from rlu_cli.models.user_code import runs_code

SOURCES: dict[str, ModelSource] = {
    "torchvision": from_torchvision.SOURCE,
    "timm": from_timm.SOURCE,
    "hf": from_hf.SOURCE,
}


def from_package(reference: str) -> bool:
    """Whether a model is named as `torchvision:NAME`, `timm:NAME` or `hf:DIR`."""
    source, colon, name = reference.partition(":")
    return bool(colon and name) and source in SOURCES


def names_files(reference: str) -> bool:
    """Whether a reference may hold a path: the user's own code, or a folder."""
    return runs_code(reference) or reference.startswith("hf:")


def build_from_package(
    reference: str,
    arguments: Mapping[str, Any],
    classes: int | None,
    state: Mapping[str, Tensor] | None,
) -> nn.Module:
    """Build `torchvision:NAME`, `timm:NAME` or `hf:DIR`.

    Raises UsageError E101 for an unknown name, E107 for an absent package, InputError E216 if the
    package cannot build it, E201 and E215 for a folder that does not fit.
    """
    source, _, name = reference.partition(":")
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            return SOURCES[source].build(Blueprint(name, arguments, classes, state))
    except RluError:
        raise
    except Exception as failure:  # whatever the package raises
        raise InputError(
            "E216",
            f"{source} cannot build {printable(name)}",
            why=printable(f"{type(failure).__name__}: {failure}", 300),
            hint="check the name, and what --model-arg gives it",
        ) from failure


def with_outputs_of(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The model with output layers rebuilt as wide as in `state`, where only that differs.

    A factory may know no other number of classes than its own, such as 1,000. A layer is a linear
    one or a 1×1 convolution; names in `state` may have anything before them.
    """
    for name, module in list(model.named_modules()):
        if name and isinstance(module, (nn.Linear, nn.Conv2d)) and not is_lazy(module.weight):
            rows = _rows(f"{name}.weight", module.weight, state)
            if rows is not None:
                _widen(module, rows)
    return model


def _rows(name: str, weight: Tensor, state: Mapping[str, Tensor]) -> int | None:
    """Outputs of the layer in `state`, if they are all that differs; else None."""
    found = [t for n, t in state.items() if n == name or n.endswith(f".{name}")]
    if len(found) != 1 or found[0].ndim != weight.ndim:
        return None
    differs = found[0].shape[0] != weight.shape[0] and found[0].shape[1:] == weight.shape[1:]
    return found[0].shape[0] if differs and weight.shape[2:].numel() == 1 else None


def _widen(layer: nn.Linear | nn.Conv2d, rows: int) -> None:
    layer.weight = nn.Parameter(layer.weight.new_zeros(rows, *layer.weight.shape[1:]))
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.new_zeros(rows))
    if isinstance(layer, nn.Conv2d):
        layer.out_channels = rows
    else:
        layer.out_features = rows
