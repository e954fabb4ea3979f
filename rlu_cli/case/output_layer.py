"""The pair under the names of its model, and the layer that gives the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from rlu_cli.case.model_names import named_as, named_as_known
from rlu_cli.checkpoints import (
    CheckpointPair,
    find_output_layer,
    joint_layer,
    layer_parts,
    read_head,
)
from rlu_cli.errors import InputError
from rlu_cli.models import (
    ARCHITECTURES,
    LogitLayers,
    build_model,
    input_shape,
    load_weights,
    logit_layers,
    packaged_model,
    recognise,
)
from rlu_cli.models.sides import COMMON_SIDES
from rlu_cli.types import Auxiliary, Setting

Values = Callable[[str], Any]
_TRIED = 8  # layers, from the end of the file, whose outputs may be the classes


def recognised(
    pair: CheckpointPair, settings: Mapping[str, Setting]
) -> tuple[CheckpointPair, Mapping[str, Setting]]:
    """The pair and the settings with the package's model that the files are of, if none is named.

    Architectures of the table go first: they need no package.
    """
    if "model" in settings:
        return pair, settings
    named = named_as_known(pair, None)
    found = None if recognise(named.before.state) else packaged_model(named.before.state)
    if found is None:
        return pair, settings
    return named, {**settings, "model": Setting(found, "keys and shapes")}


def find_layer(
    pair: CheckpointPair, value: Values, aux: str | Auxiliary
) -> tuple[CheckpointPair, bool]:
    """The pair with its output layer, under the names of the model.

    Where a model was named, the layer is the one whose output it returns in a forward pass,
    whatever its name and wherever it stands in the file; else name and shape decide. Layers whose
    mean is the logits are joined.

    value  maps the name of a setting to its value, None if it is missing
    aux    images already loaded give the size of the forward pass

    The second value says whether a ReLU stands between the layer, a convolution, and its pooling.
    Raises InputError E210 and E211 as `find_output_layer` does, and the errors of `build_model`.
    """
    model, given = value("model"), value("layer")
    classes = len(value("classes")) if value("classes") else None
    if model is None or model in ARCHITECTURES:
        pair = named_as_known(pair, model)
        name = find_output_layer(pair.before.state, layer=given, classes=classes)
        return replace(pair, layer=name), False
    built = _built(pair, value, aux)
    pair = named_as(pair, built)
    seen = _seen(built, pair, value, aux)
    if given is None and seen is not None and _is_readable(pair, seen):
        return _joined(pair, seen), seen.rectified
    name = find_output_layer(pair.before.state, layer=given, classes=classes)
    return replace(pair, layer=name), seen is not None and _rectifies(seen, name)


def _built(pair: CheckpointPair, value: Values, aux: str | Auxiliary) -> nn.Module:
    """The model that was named, with as many classes as make it fit the weights."""
    state, first = pair.before.state, None
    for classes in _numbers_of_classes(pair, value, aux):
        built = build_model(
            value("model"), state=state, arguments=value("model_args") or {}, classes=classes
        )
        if _fits(built, pair):
            return built
        first = first or built
    assert first is not None, "there is a number of classes to try"
    return first


def _fits(model: nn.Module, pair: CheckpointPair) -> bool:
    """Whether the weights load; the model is then rebuilt, so that they need not be put back."""
    before = named_as(pair, model).before
    try:
        load_weights(model, before.state, path=before.path)
    except InputError:
        return False
    return True


def _numbers_of_classes(
    pair: CheckpointPair, value: Values, aux: str | Auxiliary
) -> list[int | None]:
    """Numbers of classes to try, the likeliest first: of images, names, the likely layer, all."""
    state = pair.before.state
    tries: list[int | None] = [len(value("classes"))] if value("classes") else []
    try:
        name = find_output_layer(state, layer=value("layer"))
        tries.append(read_head(state, name).weight.shape[0])
    except InputError:
        tries.append(None)
    if isinstance(aux, Auxiliary):
        tries.insert(0, aux.classes)
    outputs = [t.shape[0] for t in state.values() if t.ndim == 2 and t.is_floating_point()]
    return list(dict.fromkeys([*tries, *reversed(outputs[-_TRIED:])]))


def _seen(
    model: nn.Module, pair: CheckpointPair, value: Values, aux: str | Auxiliary
) -> LogitLayers | None:
    try:
        channels, side = input_shape(model, pair.before.state)
    except InputError:
        return None
    if isinstance(aux, Auxiliary):
        side = aux.images.shape[-1]
    first = [size for size in (value("image_size"), side) if size is not None]
    return logit_layers(model, channels, list(dict.fromkeys([*first, *COMMON_SIDES])))


def _is_readable(pair: CheckpointPair, seen: LogitLayers) -> bool:
    """Whether the files hold the layers as plain weights."""
    try:
        heads = [read_head(pair.before.state, name) for name in seen.names]
    except InputError:
        return False
    return all(len(head.weight) == seen.classes > 1 for head in heads)


def _joined(pair: CheckpointPair, seen: LogitLayers) -> CheckpointPair:
    name = joint_layer(seen.names)
    if len(seen.names) == 1:
        return replace(pair, layer=name)
    note = f"the mean of {len(seen.names)} layers gives the logits, {name}: they are read as one"
    return replace(pair, layer=name, notes=(*pair.notes, note))


def _rectifies(seen: LogitLayers, name: str) -> bool:
    return seen.rectified and set(layer_parts(name)) <= set(seen.names)
