"""Find the output layer by shape and name, and read its weights."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.checkpoints.names import plain_name
from rlu_cli.checkpoints.unwrap import PREFIXES
from rlu_cli.errors import InputError, printable
from rlu_cli.types import Head

State = Mapping[str, Tensor]

_OUTPUT_NAMES = frozenset(
    {"classifier", "classifiers", "classification_head", "fc", "fc_out", "final", "head", "heads"}
    | {"last", "last_layer", "linear", "lm_head", "logits", "out", "output", "output_layer"}
    | {"prediction_head", "predictions", "score"}
)
# Parts of names of layers with a 2-D weight that give no logits.
_NO_OUTPUT = re.compile(
    r"embed|(^|[._])(emb|wte|wpe|pos|position|positional|norm|bn|ln|in_proj)\d*($|[._])|norm\d*$",
    re.IGNORECASE,
)
_SHOWN = 8
JOINT = "+"  # between the names of layers whose mean is the logits


@dataclass(frozen=True)
class _Layer:
    """A layer y = W x + b: `name` without ".weight", W of shape (outputs, inputs)."""

    name: str
    outputs: int
    inputs: int

    def __str__(self) -> str:
        return f"{printable(self.name, 80) or '(the model itself)'} ({self.outputs}, {self.inputs})"

    @property
    def words(self) -> list[str]:
        """Parts of the name that are not mere positions: "classifier.6" → ["classifier"]."""
        return [part for part in self.name.split(".") if not part.isdecimal()]

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller is likelier: first a usual name of output layers, then little nesting."""
        ends = [word.lower().rstrip("0123456789") for word in self.words[:1] + self.words[-1:]]
        named = any(word.rstrip("_") in _OUTPUT_NAMES for word in ends)
        return not named, len(self.words)


def find_output_layer(state: State, *, layer: str | None = None, classes: int | None = None) -> str:
    """Name of the layer that gives the logits, such as "fc3" or "classifier.6".

    state    parameters and buffers by name, in module order
    layer    the user's choice: with or without ".weight" and wrappers' prefixes; several whose mean
             is the logits are joined by a plus, "head + head_dist"
    classes  number of auxiliary classes, if known; it decides only where several layers remain

    A model that is one bare linear layer has the name "". Raises E210 when no layer or several fit,
    E211 for a layer with one output.
    """
    if layer is None:
        name = _search(state, classes)
    else:
        name = joint_layer([_named(state, part) for part in layer_parts(layer)])
    if read_head(state, name).weight.shape[0] == 1:
        raise InputError(
            "E211",
            f"output layer {printable(name)} has one logit: a binary head trained with a sigmoid",
            hint="the method needs a softmax over two classes or more; choose another layer with "
            "--layer NAME",
        )
    return name


def layer_parts(layer: str) -> tuple[str, ...]:
    """The layers that "head + head_dist" stands for."""
    return tuple(part.strip() for part in layer.split(JOINT))


def joint_layer(parts: Sequence[str]) -> str:
    """The name of several layers whose mean is the logits."""
    return f" {JOINT} ".join(parts)


def read_head(state: State, layer: str) -> Head:
    """Weight (N, L) and bias (N,) of `layer`; the bias is None for a layer without one.

    A 1×1 convolution (N, L, 1, 1) is read as the linear layer it is. Of k layers whose mean is the
    logits, the weights stand side by side, (N, ΣL), and the biases are added: the embedding that
    belongs to them is that of each layer, divided by k, and both then move as those of one layer.
    """
    heads = [_read_one(state, part) for part in layer_parts(layer)]
    first, *others = heads
    if not others:
        return first
    biases = [head.bias for head in heads if head.bias is not None]
    bias = torch.stack(biases).sum(0) if len(biases) == len(heads) else None
    return Head(torch.cat([head.weight for head in heads], 1), bias)


def _read_one(state: State, layer: str) -> Head:
    weight = state.get(_key(layer, "weight"))
    if weight is None:
        raise _not_found(state, f"there is no layer {printable(layer)}", layer)
    if weight.ndim == 4 and weight.shape[2:] == (1, 1):
        weight = weight.flatten(1)
    if weight.ndim != 2 or not weight.is_floating_point():
        shape = tuple(weight.shape)
        raise _not_found(state, f"{printable(layer)} is no linear layer: weight {shape}", layer)
    bias = state.get(_key(layer, "bias"))
    return Head(weight, bias if bias is not None and bias.shape == weight.shape[:1] else None)


def named_in(state: State, layer: str) -> str:
    """The layer's name in another file of the same model: its own, or the only one that ends so."""
    return joint_layer([_named_in(state, part) for part in layer_parts(layer)])


def _named_in(state: State, layer: str) -> str:
    if _key(layer, "weight") in state:
        return layer
    ends = [n.removesuffix(".weight") for n in state if plain_name(n).endswith(f".{layer}.weight")]
    return ends[0] if len(ends) == 1 else layer


def _key(layer: str, parameter: str) -> str:
    return f"{layer}.{parameter}" if layer else parameter


def _named(state: State, layer: str) -> str:
    """Name of the user's layer as in the state dict."""
    tries = [layer]
    for name in tries:
        if _key(name, "weight") in state:
            return name
        tries += [name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)]
        tries += [name.removesuffix(".weight")] if name.endswith(".weight") else []
    if layer == "weight" and layer in state:
        return ""
    raise _not_found(state, f"there is no layer {printable(layer)}", layer)


def _search(state: State, classes: int | None) -> str:
    layers = _linear_layers(state)
    best = _likeliest(
        [layer for i, layer in enumerate(layers) if not _feeds(layer, layers[i + 1 :])]
    )
    if len(best) > 1 and classes is not None:
        best = [layer for layer in best if layer.outputs == classes] or best
    best = _distinct(state, best)
    if len(best) > 1:
        best = [one for one in best if not _feeds(one, [o for o in layers if o != one])] or best
    if len(best) > 1 and _is_series(best):
        best = best[-1:]
    if len(best) == 1:
        return best[0].name
    what = "several layers may give the logits" if best else "no layer gives logits"
    raise _not_found(state, what, "", best)


def _linear_layers(state: State) -> list[_Layer]:
    """Layers with a 2-D weight, less embeddings, normalisation and the like, in module order."""
    return [
        _Layer(name.removesuffix("weight").removesuffix("."), *tensor.shape)
        for name, tensor in state.items()
        if name.split(".")[-1] == "weight"
        and tensor.ndim == 2
        and tensor.is_floating_point()
        and not _NO_OUTPUT.search(name.removesuffix(".weight"))
    ]


def _feeds(layer: _Layer, later: Sequence[_Layer]) -> bool:
    """Hidden layers are followed by a layer that takes as many inputs as they have outputs."""
    return any(layer.outputs == other.inputs for other in later)


def _distinct(state: State, layers: Sequence[_Layer]) -> list[_Layer]:
    """The layers without those whose weight is another one's: they are tied, and one."""
    kept: list[_Layer] = []
    for layer in layers:
        weight = state[_key(layer.name, "weight")]
        if not any(torch.equal(weight, state[_key(one.name, "weight")]) for one in kept):
            kept.append(layer)
    return kept


def _likeliest(layers: Sequence[_Layer]) -> list[_Layer]:
    best = min((layer.rank for layer in layers), default=None)
    return [layer for layer in layers if layer.rank == best]


def _is_series(layers: Sequence[_Layer]) -> bool:
    """Whether the names differ by a number only, such as fc1, fc2; then the last one is used."""
    return len({re.sub(r"\d+", "#", layer.name) for layer in layers}) == 1


def _not_found(
    state: State, what: str, layer: str, among: Sequence[_Layer] | None = None
) -> InputError:
    layers = list(among or _linear_layers(state))
    names = {item.name: item for item in layers}
    near = difflib.get_close_matches(layer, list(names), n=_SHOWN, cutoff=0.5) if layer else []
    shown = [names[name] for name in near] or layers[-_SHOWN:]
    more = f"  ({len(layers) - len(shown)} more)" if len(layers) > len(shown) else ""
    return InputError(
        "E210",
        f"output layer not found: {what}",
        facts=[("found", ", ".join(str(item) for item in shown) + more or "no linear layer")],
        hint="name it: --layer NAME",
    )
