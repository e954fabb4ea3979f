"""How a client's parameters move, given the gradient of the task loss at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlu_cli.schemes import Bundle, step
from rlu_cli.simulator.plan import Plan

Parameters = Sequence[nn.Parameter]


class Descent(Protocol):
    """Moves the parameters by step number `index` of the round."""

    def __call__(self, index: int, gradients: Sequence[Tensor]) -> None: ...


def descent(plan: Plan, parameters: Parameters, constant: Any) -> Descent:
    """The client's optimiser, fresh as at the start of every round.

    constant  Bundle that the scheme adds to every gradient; None for nothing
    """
    return _OPTIMISERS[plan.local.optimizer](plan, parameters, constant)


class _Linear:
    """SGD with momentum, Nesterov, decay and proximal pull: the very recursion that is attacked."""

    def __init__(self, plan: Plan, parameters: Parameters, constant: Any) -> None:
        self.recursion = plan.recursion
        self.parameters = parameters
        self.constant = constant
        self.origin = _origin(plan, parameters)
        self.velocity: Any = None

    @torch.no_grad()
    def __call__(self, index: int, gradients: Sequence[Tensor]) -> None:
        position, gradient = Bundle(self.parameters), Bundle(gradients)
        past = (self.origin, self.constant, self.velocity)
        following, self.velocity = step(self.recursion, index, position, gradient, *past)
        for parameter, value in zip(self.parameters, following.tensors, strict=True):
            parameter.copy_(value)


class _Adaptive:
    """Adam or AdamW; pull and constant join the gradient before the optimiser sees it."""

    def __init__(
        self, kind: type[torch.optim.Adam], plan: Plan, parameters: Parameters, constant: Any
    ) -> None:
        self.recursion = plan.recursion
        self.parameters = parameters
        self.constant = constant
        self.origin = _origin(plan, parameters)
        local = plan.local
        self.optimiser = kind(
            parameters, lr=plan.lr, betas=local.betas, weight_decay=local.weight_decay
        )

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


def _origin(plan: Plan, parameters: Parameters) -> Bundle | None:
    """θ_global, kept only where a proximal term needs it."""
    return Bundle(p.detach().clone() for p in parameters) if plan.recursion.pull else None


_OPTIMISERS: dict[str, Callable[[Plan, Parameters, Any], Descent]] = {
    "sgd": _Linear,
    "adam": lambda *given: _Adaptive(torch.optim.Adam, *given),
    "adamw": lambda *given: _Adaptive(torch.optim.AdamW, *given),
}
