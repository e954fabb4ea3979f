"""Gradients of a client's loss: the plain batch mean, or that of DP-SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from rlu_cli.local_training.loss import batch_loss
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.private import private_batches

GradientOf = Callable[[Tensor, Tensor], tuple[Tensor, Sequence[Tensor]]]


def gradients_of(
    model: nn.Module, parameters: Sequence[nn.Parameter], plan: Plan
) -> AbstractContextManager[GradientOf]:
    """(inputs, targets) → mean cross-entropy and its gradient, a tensor for each parameter.

    A parameter that the loss does not depend on has a zero gradient. With DP-SGD each sample's
    gradient is clipped and noise is added to the mean.
    """
    ways = {True: _private, False: _plain}
    return ways[plan.defence.dp_noise is not None](model, parameters, plan)


@contextmanager
def _plain(
    model: nn.Module, parameters: Sequence[nn.Parameter], plan: Plan
) -> Iterator[GradientOf]:
    def gradient_of(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        loss = _loss(model(inputs), targets, plan)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return loss.detach(), gradients

    yield gradient_of


@contextmanager
def _private(
    model: nn.Module, parameters: Sequence[nn.Parameter], plan: Plan
) -> Iterator[GradientOf]:
    with private_batches(model, parameters, plan.defence) as (observed, private):

        def gradient_of(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            # The hooks for per-sample gradients need inputs that require a gradient.
            loss = _loss(observed(inputs.requires_grad_()), targets, plan)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach(), private(len(targets))

        yield gradient_of


def _loss(logits: Tensor, targets: Tensor, plan: Plan) -> Tensor:
    local = plan.local
    return batch_loss(
        logits, targets, smoothing=local.label_smoothing, class_weights=local.class_weights
    )
