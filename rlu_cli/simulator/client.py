"""Local training of one client for one round, with a record of the labels it used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlu_cli.errors import InputError
from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.schemes.descent import clip_to_norm, descent
from rlu_cli.simulator.defences import add_noise, send_largest
from rlu_cli.simulator.gradients import gradients_of
from rlu_cli.simulator.plan import Plan

State = dict[str, Tensor]


@dataclass(frozen=True)
class LocalRound:
    """The model a client sends, and the labels it trained on.

    state     parameters and buffers by name, on the CPU
    per_step  (m, N) int64: labels of each class in each step's batch
    """

    state: State
    per_step: NDArray[np.int64]


def train_client(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    plan: Plan,
    *,
    classes: int,
    normalise: Normalisation,
    seed: tuple[int, ...],
    constant: Any = None,
    tick: Callable[[int], None] = lambda steps: None,
) -> LocalRound:
    """Take the plan's steps on mean cross-entropy, one batch each (Eq. 5).

    model     holds the initial weights; trained in place
    images    (n, H, H, 3) uint8, the client's own; labels (n,)
    seed      of batches, dropout and noise
    constant  Bundle over `trainable(model)` that is added to every gradient; None for none
    tick      called with the number of steps done
    Raises InputError E207 when the loss is not finite.
    """
    names, parameters = zip(*trainable(model).items(), strict=True)
    device = parameters[0].device
    batches = draw_batches(len(labels), plan.steps, np.random.default_rng(seed))
    start = copy_state(model) if plan.defence.topk is not None else {}
    local = plan.local
    take_step = descent(
        local.optimizer, parameters, plan.recursion, betas=local.betas, constant=constant
    )
    defend = _defences(plan, seed)
    model.train()
    with seeded(seed, device), gradients_of(model, parameters, plan) as gradient_of:
        for index, batch in enumerate(batches):
            targets = torch.tensor(labels[batch], device=device)
            pixels = normalise(to_pixels(images[batch], model))
            loss, gradients = gradient_of(pixels, targets)
            _require_finite(loss, index)
            take_step(index, defend(gradients, len(batch)))
            tick(1)
    per_step = np.stack([np.bincount(labels[batch], minlength=classes) for batch in batches])
    return LocalRound(_sent(start, copy_state(model), names, plan), per_step)


def trainable(model: nn.Module, *, aliases: bool = False) -> dict[str, nn.Parameter]:
    """The parameters that training moves, by name.

    aliases  list a parameter that has several names under each of them
    """
    named = model.named_parameters(remove_duplicate=not aliases)
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def to_pixels(images: NDArray[np.uint8], model: nn.Module) -> Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) in 0…1, on the model's device and in its type."""
    like = next(model.parameters())
    return torch.tensor(images, device=like.device).permute(0, 3, 1, 2).to(like.dtype) / 255


@contextmanager
def seeded(seed: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Seed torch's random state, and restore the previous state afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_torch_seed(seed))
        yield


def copy_state(model: nn.Module) -> State:
    """Every parameter and buffer, on the CPU, sharing nothing with the model."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _torch_seed(seed: tuple[int, ...]) -> int:
    words = np.random.SeedSequence(seed).generate_state(2, dtype=np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def _defences(
    plan: Plan, seed: tuple[int, ...]
) -> Callable[[Sequence[Tensor], int], Sequence[Tensor]]:
    """Function of a step's mean gradient and its batch size that clips, then adds noise."""
    generator = torch.Generator().manual_seed(_torch_seed((*seed, 1)))

    def defend(gradients: Sequence[Tensor], batch_size: int) -> Sequence[Tensor]:
        if plan.local.clip is not None:
            gradients = clip_to_norm(gradients, plan.local.clip)
        if plan.defence.noise:
            gradients = add_noise(gradients, plan.defence.deviation(batch_size), generator)
        return gradients

    return defend


def _sent(start: State, end: State, names: Sequence[str], plan: Plan) -> State:
    """The state that the client sends: all of it, or only the largest part of its update."""
    if plan.defence.topk is None:
        return end
    before, after = ([state[name] for name in names] for state in (start, end))
    sent = send_largest(before, after, plan.defence.topk)
    return {**end, **dict(zip(names, sent, strict=True))}


def _require_finite(loss: Tensor, index: int) -> None:
    if not bool(torch.isfinite(loss)):
        raise InputError(
            "E207",
            f"training diverged: the loss of step {index + 1} is not finite",
            hint="use a smaller --lr",
        )
