"""Layouts of state dicts that tensors without names could be of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import torch

from rlu_cli.models.architecture import Architecture
from rlu_cli.models.reference import build_model
from rlu_cli.models.table import ARCHITECTURES

Shape = tuple[int, ...]
_ACTIVATION = "act"  # has no tensors of its own
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def possible_layouts(
    shapes: Sequence[Shape],
    model: str | None,
    arguments: Mapping[str, Any],
    classes: int | None,
) -> Iterator[dict[str, Shape]]:
    """Names and shapes, in the order of the state dict, of models that the tensors could be of.

    shapes     of the tensors, in their order: all of a model's, its parameters alone, or one vector
    model      as in --model; None for every known architecture
    arguments  of the model, given by the user
    classes    N; None if it is not given

    Whether they fit is for the caller to see. The user's own code runs where `model` names it, with
    the errors of `build_model`.
    """
    if model is not None and model not in ARCHITECTURES:
        count = shapes[-1][0] if classes is None and len(shapes) > 1 and shapes[-1] else classes
        built = build_model(model, arguments=arguments, classes=count)
        yield {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
        return
    for name in ARCHITECTURES if model is None else [model]:
        for form in _forms(ARCHITECTURES[name], arguments, classes):
            default = ARCHITECTURES[name].layout(form)
            yield default
            for names in (list(default), [n for n in default if not n.endswith(_BUFFERS)]):
                if len(names) == len(shapes):
                    named = dict(zip(names, map(_empty, shapes), strict=True))
                    nearest = ARCHITECTURES[name].nearest_layout(named)
                    yield from () if nearest is None else (nearest,)


def _forms(
    architecture: Architecture, arguments: Mapping[str, Any], classes: int | None
) -> Iterator[dict[str, Any]]:
    """Every combination of the options that change which tensors there are."""
    choices = {
        name: values
        for name, values in architecture.options.items()
        if isinstance(values[0], str | bool) and name != _ACTIVATION and name not in arguments
    }
    known = {} if classes is None else {"num_classes": classes}
    for chosen in product(*choices.values()):
        yield {**known, **dict(zip(choices, chosen, strict=True)), **arguments}


def _empty(shape: Shape) -> torch.Tensor:
    return torch.empty(shape, device="meta")
