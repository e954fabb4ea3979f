"""A client's optimiser in one local round: the parameter update, given the gradient of each step.

Used by the simulator's clients and by virtual clients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlu_cli.schemes.bundle import Bundle
from rlu_cli.schemes.recursion import Recursion, step

_KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
ADAPTIVE = tuple(_KINDS)
BETAS = (0.9, 0.999)

Parameters = Sequence[nn.Parameter]


class Descent(Protocol):
    """Applies step number `index` of the round to the parameters, in place."""

    def __call__(self, index: int, gradients: Sequence[Tensor]) -> None: ...


def descent(
    optimizer: str,
    parameters: Parameters,
    recursion: Recursion,
    *,
    betas: tuple[float, float] = BETAS,
    constant: Any = None,
) -> Descent:
    """A client's optimiser with fresh state for one round: θ^τ, ∇^τ → θ^{τ+1}, in place.

    optimizer   "sgd", "adam" or "adamw"
    parameters  θ
    recursion   learning rates and pull; momentum for SGD only; decay by the optimiser's own rule
    betas       of Adam and AdamW
    constant    Bundle that the scheme adds to every gradient; None for none
    """
    if optimizer in ADAPTIVE:
        return _Adaptive(_KINDS[optimizer], parameters, recursion, betas, constant)
    return _Linear(parameters, recursion, constant)


def clip_to_norm(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """Gradients scaled by min(1, limit / (‖g‖ + 1e-6)), with the joint norm ‖g‖.

    Same as `torch.nn.utils.clip_grad_norm_`.
    """
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    return [gradient * factor for gradient in gradients]


class _Linear:
    """SGD with momentum, Nesterov, decay and proximal pull: the recursion that attacks assume."""

    def __init__(self, parameters: Parameters, recursion: Recursion, constant: Any) -> None:
        self.recursion = recursion
        self.parameters = parameters
        self.constant = constant
        self.origin = _origin(recursion, parameters)
        self.velocity: Any = None

    @torch.no_grad()
    def __call__(self, index: int, gradients: Sequence[Tensor]) -> None:
        position, gradient = Bundle(self.parameters), Bundle(gradients)
        past = (self.origin, self.constant, self.velocity)
        following, self.velocity = step(self.recursion, index, position, gradient, *past)
        for parameter, value in zip(self.parameters, following.tensors, strict=True):
            parameter.copy_(value)


class _Adaptive:
    """Adam or AdamW; pull and constant are added to the gradient before the optimiser's step."""

    def __init__(
        self,
        kind: Callable[..., torch.optim.Adam],
        parameters: Parameters,
        recursion: Recursion,
        betas: tuple[float, float],
        constant: Any,
    ) -> None:
        self.recursion = recursion
        self.parameters = parameters
        self.constant = constant
        self.origin = _origin(recursion, parameters)
        settings = {"lr": recursion.lr[0], "betas": betas, "weight_decay": recursion.decay}
        self.optimiser = kind(parameters, **settings)

    @torch.no_grad()
    def __call__(self, index: int, gradients: Sequence[Tensor]) -> None:
        gradient = Bundle(gradients)
        if self.origin is not None:
            gradient = gradient + (Bundle(self.parameters) - self.origin) * self.recursion.pull
        if self.constant is not None:
            gradient = gradient + self.constant
        for parameter, value in zip(self.parameters, gradient.tensors, strict=True):
            parameter.grad = value
        for group in self.optimiser.param_groups:
            group["lr"] = self.recursion.lr[index]
        self.optimiser.step()
        self.optimiser.zero_grad()


def _origin(recursion: Recursion, parameters: Parameters) -> Bundle | None:
    """A copy of θ_global; None without a proximal term."""
    return Bundle(p.detach().clone() for p in parameters) if recursion.pull else None
