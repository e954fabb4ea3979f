"""Several virtual clients at once: a row of weights for each, and one pass for all of them.

A step of one small model keeps a GPU waiting for the next instruction; there, this is faster.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from rlu_cli.evidence.forward import ForwardConfig, seeded_dropout
from rlu_cli.evidence.virtual_client import Batches, output_logits, train_virtual
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.models import load_weights
from rlu_cli.schemes.descent import clip_to_norm, descent
from rlu_cli.types import Auxiliary, Checkpoint

AT_ONCE = 16  # clients on a GPU, whose memory then holds as many batches

Rows = dict[str, Tensor]  # by name, the first dimension one for each client


def train_each(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    rounds: Sequence[Batches],
    training: LocalTraining,
    config: ForwardConfig,
) -> Iterator[dict[str, Tensor]]:
    """What virtual clients with these rounds hand in, in order, as `train_virtual` gives it.

    rounds  for each client its batches; its dropout is drawn from `view.seed` + its number

    On a GPU `AT_ONCE` clients train together where the model can be run so.
    """
    together = config.device.type == "cuda"
    for first in range(0, len(rounds), AT_ONCE):
        part = rounds[first : first + AT_ONCE]
        configs = [
            replace(config, seed=config.seed + first + number) for number in range(len(part))
        ]
        told = model, checkpoint, auxiliary, part, training, configs
        ends = train_together(*told) if together else None
        if ends is not None:
            yield from ends
            continue
        together = False
        for batches, own in zip(part, configs, strict=True):
            yield train_virtual(model, checkpoint, auxiliary, batches, training, own)


def train_together(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    rounds: Sequence[Batches],
    training: LocalTraining,
    configs: Sequence[ForwardConfig],
) -> list[dict[str, Tensor]] | None:
    """What R clients hand in, each step of all of them in one pass through `torch.vmap`.

    rounds  of the R clients; batch τ has the same size in all
    views   of the R clients, alike but for the seed of dropout

    None where that cannot be: the model decides by values (BatchNorm with `momentum=None` does), it
    draws at random by other means than a dropout module, weights of it have two names, it diverges,
    or memory runs out. `model` itself is neither run nor changed.
    """
    try:
        own = deepcopy(model)  # a pass that fails half way would leave it with rows for weights
        load_weights(own, checkpoint.state, path=checkpoint.path)
        own.to(configs[0].device).train(configs[0].training)
        # What a user's own model prints must not end up in the report.
        with redirect_stdout(sys.stderr):
            return None if _tied(own) else _train_rows(own, auxiliary, rounds, training, configs)
    except Exception:  # whatever the user's own code raises: one by one, it is raised again
        return None


def _train_rows(
    model: nn.Module,
    auxiliary: Auxiliary,
    rounds: Sequence[Batches],
    training: LocalTraining,
    configs: Sequence[ForwardConfig],
) -> list[dict[str, Tensor]] | None:
    config = configs[0]
    parameters = {
        name: nn.Parameter(_rows(value, len(configs)), requires_grad=value.requires_grad)
        for name, value in model.named_parameters()
    }
    buffers = {name: _rows(value, len(configs)) for name, value in model.named_buffers()}
    moving = [rows for rows in parameters.values() if rows.requires_grad]
    take_step = descent(training.optimizer, moving, training.recursion, betas=training.betas)
    masks = _Masks(configs)
    with output_logits(model, config.layer) as seen, seeded_dropout(model, config, masks.draw):

        def loss_of(own: Rows, kept: Rows, images: Tensor, targets: Tensor, number: Tensor) -> Any:
            masks.number = number
            functional_call(model, (own, kept), (images,))
            logits, smoothing = seen.pop(), training.smoothing
            return functional.cross_entropy(logits, targets, label_smoothing=smoothing), kept

        losses_of = torch.vmap(loss_of, randomness="same")
        fresh = _random_states(config.device)
        for index, batches in enumerate(zip(*rounds, strict=True)):
            taken = torch.from_numpy(np.stack(batches))
            images = config.normalise(auxiliary.images[taken.flatten()].to(config.device))
            targets = auxiliary.labels[taken].to(config.device)
            images = images.reshape(*taken.shape, *images.shape[1:])
            losses, buffers = losses_of({**parameters}, buffers, images, targets, masks.numbers)
            gradients = torch.autograd.grad(
                losses.sum(), moving, allow_unused=True, materialize_grads=True
            )
            take_step(index, _clipped(gradients, training.clip))
        if not torch.equal(fresh, _random_states(config.device)):
            return None
    if not all(bool(torch.isfinite(rows).all()) for rows in moving):
        return None
    return _states(model, {**parameters, **buffers}, len(configs))


class _Masks:
    """Dropout masks of all clients at once, each from its own seed, as `seeded_dropout` draws them.

    numbers  (R,) of the clients
    number   of the one whose pass `torch.vmap` is tracing
    """

    def __init__(self, configs: Sequence[ForwardConfig]) -> None:
        self.generators = [torch.Generator().manual_seed(config.seed) for config in configs]
        self.numbers = torch.arange(len(configs))
        self.number = self.numbers[0]

    def draw(self, shape: Sequence[int]) -> Tensor:
        drawn = torch.stack([torch.rand(shape, generator=g) for g in self.generators])
        return drawn.index_select(0, self.number[None])[0]


def _clipped(gradients: Sequence[Tensor], limit: float | None) -> Sequence[Tensor]:
    """Each client's gradients clipped by their own norm."""
    if limit is None:
        return gradients
    return torch.vmap(lambda *own: tuple(clip_to_norm(own, limit)))(*gradients)


def _rows(value: Tensor, count: int) -> Tensor:
    return value.detach().expand(count, *value.shape).clone()


def _random_states(device: torch.device) -> Tensor:
    """Where torch's own generators stand, on the CPU and on the device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def _tied(model: nn.Module) -> bool:
    """Whether a parameter or buffer has several names."""
    once, often = (
        [*model.named_parameters(remove_duplicate=one), *model.named_buffers(remove_duplicate=one)]
        for one in (True, False)
    )
    return len(once) != len(often)


def _states(model: nn.Module, rows: Rows, clients: int) -> list[dict[str, Tensor]]:
    """Each client's parameters and buffers, on the CPU, of those that the model saves."""
    ended = {name: rows[name].detach().cpu() for name in model.state_dict()}
    return [
        {name: value[number].clone() for name, value in ended.items()} for number in range(clients)
    ]
