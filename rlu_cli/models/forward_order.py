"""Which layer gives the logits: seen in a forward pass, not guessed from names."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.errors import RluError

_IMAGES = 3  # more than one, as BatchNorm needs
_MOST_HEADS = 3
_FIRST = ("logits", "out", "output", "prediction")  # keys of dicts that models return
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class LogitLayers:
    """The layers whose outputs are a model's logits.

    names      one layer, or several whose mean the model returns
    rectified  whether a ReLU stands between the layer, a 1×1 convolution, and its pooling
    classes    N
    """

    names: tuple[str, ...]
    rectified: bool
    classes: int


def logit_layers(model: nn.Module, channels: int, sides: Sequence[int]) -> LogitLayers | None:
    """Run a model on random images, and find the layers whose outputs are what it returns.

    A layer's output counts as the logits if the model returns it, its mean over all positions (of
    a 1×1 convolution, with a ReLU before or not), or its mean with those of other layers. If the
    model returns something else of that width, such as log-probabilities, it is the last layer of
    that width to run. Models that return several tensors in training mode give the logits first.

    sides  image sizes to try until one runs

    None where no size runs or no layer is found. Weights, buffers and modes stay as they are.
    """
    for side in sides:
        for training in (True, False):
            seen = _seen(model, channels, side, training=training)
            if seen is not None:
                return _found(*seen)
    return None


def _seen(
    model: nn.Module, channels: int, side: int, *, training: bool
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """What the model returns for random images, and the outputs of its linear layers, as run."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def after(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                outputs.pop(name, None)  # the last use counts
                outputs[name] = output.detach().clone()  # a ReLU may change it in place

        return after

    layers = {name: m for name, m in model.named_modules() if _is_linear(m)}
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    images = torch.rand(_IMAGES, channels, side, side, generator=torch.Generator().manual_seed(0))
    try:
        with _unchanged(model), redirect_stdout(sys.stderr), torch.no_grad():
            model.train(training)
            returned = _logits(model(images))
    except RluError:  # of code that would end the program
        raise
    except Exception:  # whatever the user's own code raises on images of this size
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return None if returned is None else (returned.detach(), outputs)


def _is_linear(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or isinstance(module, nn.Embedding):
        return False
    return weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2:] == (1, 1))


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Put back buffers, modes and the random state afterwards."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        for module, mode in modes:
            module.training = mode


def _logits(returned: Any) -> Tensor | None:
    """The logits (B, N) among what a model returns."""
    if isinstance(returned, Tensor):
        return returned if returned.ndim == 2 and len(returned) == _IMAGES else None
    if isinstance(returned, Mapping):
        named = [returned[key] for key in _FIRST if key in returned]
        return _first([*named, *returned.values()])
    return _first(returned) if isinstance(returned, (tuple, list)) else None


def _first(returned: Sequence[Any]) -> Tensor | None:
    found = (_logits(one) for one in returned)
    return next((one for one in found if one is not None), None)


def _found(logits: Tensor, outputs: Mapping[str, Tensor]) -> LogitLayers | None:
    classes = logits.shape[1]
    wide = {n: o for n, o in outputs.items() if _fits(o, classes)}
    for rectified in (False, True):
        pooled = {n: _pooled(o, rectified=rectified) for n, o in wide.items()}
        for count in range(1, _MOST_HEADS + 1):
            for names in combinations(reversed(pooled), count):
                if _same(sum(pooled[n] for n in names) / count, logits):
                    order = tuple(reversed(names))
                    return LogitLayers(order, rectified and _is_map(wide[order[0]]), classes)
    last = next(reversed(wide), None)
    return None if last is None else LogitLayers((last,), False, classes)


def _fits(output: Tensor, classes: int) -> bool:
    return len(output) == _IMAGES and output.ndim in (2, 4) and output.shape[1] == classes


def _is_map(output: Tensor) -> bool:
    return output.ndim == 4


def _pooled(output: Tensor, *, rectified: bool) -> Tensor:
    if not _is_map(output):
        return output
    return (output.relu() if rectified else output).mean((2, 3))


def _same(one: Any, other: Tensor) -> bool:
    return bool(torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE))
