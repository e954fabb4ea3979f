"""What the output layer sees and gives in a forward pass: one layer, a convolution, or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlu_cli.checkpoints import layer_parts


@dataclass(frozen=True)
class LayerPass:
    """One use of the output layer on a batch.

    embeddings  (B, L) its input; of a convolution, the mean over positions; of k layers whose mean
                is the logits, their inputs side by side, divided by k
    logits      (B, N)
    gates       (B, N) share of the positions at which a ReLU after a convolution lets each class
                through; None without one
    """

    embeddings: Tensor
    logits: Tensor
    gates: Tensor | None


@contextmanager
def watch_output_layer(
    model: nn.Module, layer: str, *, rectified: bool = False
) -> Iterator[list[LayerPass]]:
    """Yields a list that every pass is appended to; empty it before the next.

    layer      its name, or several joined by a plus
    rectified  whether a ReLU stands between the layer, a 1×1 convolution, and its pooling

    Raises AttributeError if the model has no such layer.
    """
    passes: list[LayerPass] = []
    parts, seen = layer_parts(layer), dict[str, LayerPass]()

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = _pass(inputs[0], output, rectified=rectified)
            if len(seen) == len(parts):
                passes.append(_joined([seen[part] for part in parts]))
                seen.clear()

        return after

    layers = {part: model.get_submodule(part) for part in parts}
    hooks = [module.register_forward_hook(keep(name)) for name, module in layers.items()]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _pass(inputs: Tensor, output: Tensor, *, rectified: bool) -> LayerPass:
    if output.ndim != 4:
        return LayerPass(inputs.flatten(1), output.flatten(1), None)
    embeddings = inputs.mean((2, 3))
    if not rectified:
        return LayerPass(embeddings, output.mean((2, 3)), None)
    return LayerPass(embeddings, output.relu().mean((2, 3)), (output > 0).float().mean((2, 3)))


def _joined(parts: Sequence[LayerPass]) -> LayerPass:
    if len(parts) == 1:
        return parts[0]
    embeddings = torch.cat([part.embeddings for part in parts], 1) / len(parts)
    return LayerPass(embeddings, torch.stack([part.logits for part in parts]).mean(0), None)
