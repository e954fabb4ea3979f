"""Layouts of state dicts that tensors without names could be of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.models.architecture import Architecture
from rlu_cli.models.reference import build_model
from rlu_cli.models.sources import from_package
from rlu_cli.models.table import ARCHITECTURES

Shape = tuple[int, ...]
_ACTIVATION = "act"  # has no tensors of its own
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def possible_layouts(
    shapes: Sequence[Shape],
    model: str | None,
    arguments: Mapping[str, Any],
    classes: int | None,
) -> Iterator[dict[str, Tensor]]:
    """State dicts, in their order, of models that the tensors could be of.

    shapes     of the tensors, in their order: all of a model's, its parameters alone, or one vector
    model      as in --model; None for every known architecture
    arguments  of the model, given by the user
    classes    N; None if it is not given

    Whether they fit is for the caller to see. The user's own code runs where `model` names it, with
    the errors of `build_model`.
    """
    if model is not None and model not in ARCHITECTURES:
        yield from _of_built(shapes, model, arguments, classes)
        return
    for name in ARCHITECTURES if model is None else [model]:
        for form in _forms(ARCHITECTURES[name], arguments, classes):
            default = ARCHITECTURES[name].layout(form)
            yield default
            for named in _as_named(shapes, default):
                nearest = ARCHITECTURES[name].nearest_layout(named)
                yield from () if nearest is None else (nearest,)


def _of_built(
    shapes: Sequence[Shape], model: str, arguments: Mapping[str, Any], classes: int | None
) -> Iterator[dict[str, Tensor]]:
    """The state dict and the parameters of a model of a package or of the user's own code.

    Then those of the model with its outputs made to fit.
    """
    count = shapes[-1][0] if classes is None and len(shapes) > 1 and shapes[-1] else classes
    built = _sketch(model, arguments, count, None)
    yield from _listed(built)
    fitted = (named for listed in _listed(built) for named in _as_named(shapes, listed))
    for named in fitted:
        yield from _listed(_sketch(model, arguments, count, named))


def _sketch(
    model: str,
    arguments: Mapping[str, Any],
    classes: int | None,
    state: Mapping[str, Tensor] | None,
) -> nn.Module:
    """The model, without memory where a package builds it: a folder must not say how much."""
    with torch.device("meta") if from_package(model) else nullcontext():
        return build_model(model, state=state, arguments=arguments, classes=classes)


def _listed(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    yield dict(model.state_dict())
    yield dict(model.named_parameters())  # tied ones once, and no buffer of whatever name


def _as_named(shapes: Sequence[Shape], state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The shapes under the names of a state dict, or of its parameters, if they are as many."""
    for names in (list(state), [name for name in state if not name.endswith(_BUFFERS)]):
        if len(names) == len(shapes):
            yield dict(zip(names, map(_empty, shapes), strict=True))


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


def _empty(shape: Shape) -> Tensor:
    return torch.empty(shape, device="meta")
