"""One client's local round: plain SGD on its own images, and the labels it used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rlu_cli.errors import InputError
from rlu_cli.normalisation import Normalisation
from rlu_cli.schemes.recursion import Recursion, step

State = dict[str, Tensor]


@dataclass(frozen=True)
class LocalRound:
    """What a client hands in, and what it did.

    state     parameters and buffers by name, on the CPU
    per_step  (m, N) int64: labels of each class in each step's batch
    """

    state: State
    per_step: NDArray[np.int64]


def train_client(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    classes: int,
    steps: int,
    batch_size: int,
    lr: float,
    normalise: Normalisation,
    seed: tuple[int, ...],
    tick: Callable[[int], None] = lambda steps: None,
) -> LocalRound:
    """Take `steps` steps of SGD on mean cross-entropy, one batch of |B| each (Eq. 5).

    model   starts from the weights it holds, and is changed
    images  (n, H, H, 3) uint8, the client's own; labels (n,)
    seed    fixes batches and dropout; the same numbers give the same round
    Raises InputError E207 when the loss is no longer finite.
    """
    device = next(model.parameters()).device
    batches = draw_batches(len(labels), steps, batch_size, np.random.default_rng(seed))
    recursion = Recursion(lr=(lr,) * steps)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    with seeded(seed, device):
        for index, batch in enumerate(batches):
            targets = torch.tensor(labels[batch], device=device)
            loss = functional.cross_entropy(
                model(normalise(to_pixels(images[batch], device))), targets
            )
            _require_finite(loss, index)
            _descend(recursion, index, loss, parameters)
            tick(1)
    per_step = np.stack([np.bincount(labels[batch], minlength=classes) for batch in batches])
    return LocalRound(copy_state(model), per_step)


def to_pixels(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """(B, H, W, 3) uint8 → (B, 3, H, W) float32 in 0…1 on the device."""
    return torch.tensor(images, device=device).permute(0, 3, 1, 2).float() / 255


def draw_batches(
    count: int, steps: int, batch_size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Which of its images a client uses in each step: (m, |B|).

    It goes through them in shuffled order and shuffles anew when they run out, within a batch too.
    """
    passes = -(-steps * batch_size // count)
    order = np.concatenate([rng.permutation(count) for _ in range(passes)])
    return order[: steps * batch_size].reshape(steps, batch_size)


@contextmanager
def seeded(seed: tuple[int, ...], device: torch.device) -> Iterator[None]:
    """Let torch draw from a seed of its own, and leave its state as it was."""
    words = np.random.SeedSequence(seed).generate_state(2, dtype=np.uint32)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        yield


def copy_state(model: nn.Module) -> State:
    """Every parameter and buffer, on the CPU, sharing nothing with the model."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _descend(
    recursion: Recursion, index: int, loss: Tensor, parameters: list[nn.Parameter]
) -> None:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.copy_(step(recursion, index, parameter, gradient, parameter)[0])


def _require_finite(loss: Tensor, index: int) -> None:
    if not bool(torch.isfinite(loss)):
        raise InputError(
            "E207",
            f"training diverged: the loss of step {index + 1} is not finite",
            hint="take a smaller --lr",
        )
