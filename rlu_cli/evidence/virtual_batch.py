"""A virtual batch: several virtual clients trained in one vectorised pass per step.

This is faster on a GPU, where the steps of one small model are bound by kernel launches.
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

from rlu_cli.evidence.forward import ForwardConfig, seeded_dropout
from rlu_cli.evidence.virtual_client import Batches, output_logits, train_virtual
from rlu_cli.local_training.description import LocalTraining
from rlu_cli.models import load_weights
from rlu_cli.schemes.descent import clip_to_norm, descent
from rlu_cli.types import Auxiliary, Checkpoint

AT_ONCE = 16  # virtual clients per GPU pass; memory grows with it

Rows = dict[str, Tensor]  # tensors by name, stacked over clients in the first dimension


def train_each(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    rounds: Sequence[Batches],
    training: LocalTraining,
    config: ForwardConfig,
) -> Iterator[dict[str, Tensor]]:
    """Train virtual clients; yields the state each sends, in order, as `train_virtual` returns it.

    rounds  the batches of each client
    config  client r draws its dropout masks with seed `config.seed` + r

    On a GPU, `AT_ONCE` clients train together if `train_together` supports the model.
    """
    together = config.device.type == "cuda"
    for first in range(0, len(rounds), AT_ONCE):
        part = rounds[first : first + AT_ONCE]
        configs = [
            replace(config, seed=config.seed + first + number) for number in range(len(part))
        ]
        arguments = model, checkpoint, auxiliary, part, training, configs
        ends = train_together(*arguments) if together else None
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
    """The states that R clients send, with each step of all of them in one `torch.vmap` pass.

    rounds   batches of the R clients; batch τ has the same size for all
    configs  of the R clients, equal except for the seed of dropout

    None if the model does not allow it: its control flow depends on values (as that of BatchNorm
    with `momentum=None`), it draws random numbers outside dropout modules, it has tied weights, it
    diverges, or memory runs out. `model` itself is neither run nor changed.
    """
    try:
        own = deepcopy(model)  # a failed pass would leave stacked weights in it
        load_weights(own, checkpoint.state, path=checkpoint.path)
        own.to(configs[0].device).train(configs[0].training)
        # What a user's own model prints must not end up in the report.
        with redirect_stdout(sys.stderr):
            return None if _tied(own) else _train_rows(own, auxiliary, rounds, training, configs)
    except Exception:  # training one by one raises the error of the user's code again
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
    with output_logits(model, config) as logits, seeded_dropout(model, config, masks.draw):

        def loss_of(own: Rows, kept: Rows, images: Tensor, targets: Tensor, number: Tensor) -> Any:
            masks.number = number
            functional_call(model, (own, kept), (images,))
            return training.loss(logits(), targets), kept

        losses_of = torch.vmap(loss_of, randomness="same")
        fresh = _random_states(config.device)
        for index, batches in enumerate(zip(*rounds, strict=True)):
            rows = torch.from_numpy(np.stack(batches))
            images = config.normalise(auxiliary.images[rows.flatten()].to(config.device))
            targets = auxiliary.labels[rows].to(config.device)
            images = images.reshape(*rows.shape, *images.shape[1:])
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
    """Dropout masks of all clients, each from its own seed, as `seeded_dropout` draws them.

    numbers  (R,) indices of the clients
    number   scalar index of the client in the current `torch.vmap` pass
    """

    def __init__(self, configs: Sequence[ForwardConfig]) -> None:
        self.generators = [torch.Generator().manual_seed(config.seed) for config in configs]
        self.numbers = torch.arange(len(configs))
        self.number = self.numbers[0]

    def draw(self, shape: Sequence[int]) -> Tensor:
        drawn = torch.stack([torch.rand(shape, generator=g) for g in self.generators])
        return drawn.index_select(0, self.number[None])[0]


def _clipped(gradients: Sequence[Tensor], limit: float | None) -> Sequence[Tensor]:
    """Clip each client's gradients by their own joint norm."""
    if limit is None:
        return gradients
    return torch.vmap(lambda *own: tuple(clip_to_norm(own, limit)))(*gradients)


def _rows(value: Tensor, count: int) -> Tensor:
    return value.detach().expand(count, *value.shape).clone()


def _random_states(device: torch.device) -> Tensor:
    """The states of torch's default generators, on the CPU and on the device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def _tied(model: nn.Module) -> bool:
    """Whether a parameter or buffer has several names (tied weights)."""
    once, often = (
        [*model.named_parameters(remove_duplicate=one), *model.named_buffers(remove_duplicate=one)]
        for one in (True, False)
    )
    return len(once) != len(often)


def _states(model: nn.Module, rows: Rows, clients: int) -> list[dict[str, Tensor]]:
    """Each client's state dict, on the CPU."""
    ended = {name: rows[name].detach().cpu() for name in model.state_dict()}
    return [
        {name: value[number].clone() for name, value in ended.items()} for number in range(clients)
    ]
