"""A client's steps against PyTorch's own optimisers, step by step in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.schemes import Bundle
from rlu_cli.schemes.descent import clip_to_norm, descent
from rlu_cli.simulator.client import seeded, train_client
from rlu_cli.simulator.digits import draw_digits
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan

STEPS = 6
SHAPES = ((4, 3), (4,), (2, 2, 2))


def _parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in SHAPES]


def _gradients() -> Iterator[list[Tensor]]:
    for step in range(STEPS):
        yield [p.detach().clone() for p in _parameters(100 + step)]


def _same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("schedule", ["constant", "step:2:0.5", "cosine:9", "linear:0.01"])
def test_sgd_takes_pytorchs_steps(
    momentum: float, nesterov: bool, decay: float, schedule: str
) -> None:
    local = Local(momentum=momentum, nesterov=nesterov, weight_decay=decay, lr_schedule=schedule)
    plan = Plan(lr=0.1, epochs=STEPS, local=local)
    ours, theirs = _parameters(), _parameters()
    take_step = descent("sgd", ours, plan.recursion)
    settings: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    optimiser = torch.optim.SGD(theirs, lr=0.1, **settings)
    for index, gradients in enumerate(_gradients()):
        take_step(index, gradients)
        _torch_step(optimiser, theirs, gradients, plan.recursion.lr[index])
        _same(ours, theirs)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("pull", [0.0, 2.0])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_sees_the_gradient_with_pull_and_constant(
    name: str, pull: float, decay: float
) -> None:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    scheme = "fedprox" if pull else "fedavg"
    betas = (0.8, 0.95)
    local = Local(scheme, name, pull=pull, weight_decay=decay, betas=betas)
    plan = Plan(lr=0.1, epochs=STEPS, local=local)
    ours, theirs, constant = _parameters(), _parameters(), _parameters(7)
    origin = [p.detach().clone() for p in theirs]
    added = Bundle(p.detach() for p in constant)
    take_step = descent(name, ours, plan.recursion, betas=betas, constant=added)
    optimiser = kind(theirs, lr=0.1, betas=betas, weight_decay=decay)
    for index, gradients in enumerate(_gradients()):
        take_step(index, gradients)
        whole = [
            g + pull * (p.detach() - o) + c.detach()
            for g, p, o, c in zip(gradients, theirs, origin, constant, strict=True)
        ]
        _torch_step(optimiser, theirs, whole, 0.1)
        _same(ours, theirs)


def _torch_step(
    optimiser: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    rate: float,
) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


@pytest.mark.parametrize("limit", [0.01, 1.0, 1e6])
def test_clipping_is_pytorchs(limit: float) -> None:
    for gradients in _gradients():
        parameters = _parameters()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        _same(clip_to_norm(gradients, limit), [p.grad for p in parameters if p.grad is not None])


def _model() -> nn.Module:
    with seeded((0,), torch.device("cpu")):
        return nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.Tanh(), nn.Linear(8, 10)).double()


def test_a_whole_round_is_that_of_a_plain_training_loop() -> None:
    """One batch holds all images, so that the order of the images does not matter."""
    images, labels = draw_digits(2, seed=1)
    local = Local(momentum=0.9, nesterov=True, weight_decay=0.01, clip=0.5, label_smoothing=0.1)
    plan = Plan(lr=0.05, epochs=4, batch_size=len(labels), local=local)
    model = _model()
    given: dict[str, Any] = {"classes": 10, "normalise": PRESETS["half"], "seed": (0,)}
    sent = train_client(model, images, labels, plan, **given).state
    expected = _model()
    optimiser = torch.optim.SGD(
        expected.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01
    )
    pixels = torch.tensor(images).permute(0, 3, 1, 2).double() / 255 * 2 - 1
    for _ in range(4):
        loss = nn.functional.cross_entropy(
            expected(pixels), torch.tensor(labels), label_smoothing=0.1
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 0.5)
        optimiser.step()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(sent[name], value, rtol=0, atol=1e-12)


def test_the_caller_gets_the_labels_of_every_batch() -> None:
    images, labels = draw_digits(2, seed=1)
    local = Local(samples=20)
    plan = Plan(epochs=2, batch_size=8, local=local)
    given: dict[str, Any] = {"classes": 10, "normalise": PRESETS["half"], "seed": (0,)}
    done = train_client(_model(), images, labels, plan, **given)
    assert done.per_step.sum(axis=1).tolist() == [8, 8, 4, 8, 8, 4]
    for one_pass in np.split(done.per_step, 2):
        assert one_pass.sum(axis=0).tolist() == [2] * 10
