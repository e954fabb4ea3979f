"""Every scheme on arbitrary gradients: θ^τ - θ_global = -η Σ weights ∇ - offset, in every state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from federations import CLIENTS, play
from torch import Tensor

from rlu_cli.schemes import (
    SCHEMES,
    Recursion,
    derived_server_value,
    learning_rates,
    offset_weights,
    path,
    step_weights,
)

Extras = dict[str, Any]  # of the recursion, besides λ
NAMES = tuple(SCHEMES)
TAKES_LAMBDA = [name for name, scheme in SCHEMES.items() if scheme.takes_lambda]
EXTRAS: dict[str, Extras] = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.5, "nesterov": True},
    "decay": {"decay": 0.01},
    "all": {"momentum": 0.9, "nesterov": True, "decay": 0.01},
}
SCHEDULES = ("constant", "step:2:0.5", "cosine:9", "linear:0.01")


def _recursion(
    name: str, steps: int, pull: float, extras: Extras, schedule: str = "constant"
) -> Recursion:
    scheme = SCHEMES[name].build(pull if name in TAKES_LAMBDA else 0.0)
    return Recursion(lr=learning_rates(0.1, steps, schedule), pull=scheme.pull, **extras)


def _predicted(
    recursion: Recursion, gradients: list[Tensor], moving: list[Tensor | None]
) -> Tensor:
    """θ_global minus every state, from weights and offset alone: (m + 1, size)."""
    zeros = torch.zeros_like(gradients[0])
    directions = torch.stack([zeros if d is None else d for d in moving])
    made = recursion.lr[0] * step_weights(recursion) @ torch.stack(gradients)
    return made + offset_weights(recursion) @ directions


@pytest.mark.parametrize("partial", [False, True], ids=["full", "partial"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("name", NAMES)
def test_every_state_is_weights_times_gradients_and_offset(
    name: str, extras: Extras, schedule: str, partial: bool
) -> None:
    for steps, pull in ((1, 0.5), (3, 5.0), (7, 0.5)):
        recursion = _recursion(name, steps, pull, extras, schedule)
        scheme = SCHEMES[name].build(recursion.pull)
        federation = play(scheme, recursion, 6, partial=partial)
        for one in federation.played:
            origin = one.states[0]
            constant = scheme.constant(one.past, recursion.rate, one.server)
            predicted = _predicted(recursion, one.gradients, [origin, constant, None])
            moved = origin - torch.stack(one.states)
            scale = 1 + float(origin.abs().max())
            assert float((moved - predicted).abs().max()) / scale < 1e-12


@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
def test_an_old_momentum_buffer_is_part_of_the_offset(extras: Extras) -> None:
    recursion = _recursion("fedprox", 6, 0.5, extras)
    generator = torch.Generator().manual_seed(1)
    origin, velocity, *gradients = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    states = list(path(recursion, origin, gradients, None, velocity))
    predicted = _predicted(recursion, gradients, [origin, None, velocity])
    assert float((origin - torch.stack(states) - predicted).abs().max()) < 1e-12


ETA, STEPS = 0.1, 7


def _rho(name: str, **extras: Any) -> Tensor:
    return step_weights(_recursion(name, STEPS, extras.pop("pull", 0.0), extras))[-1]


def test_table_1_weights() -> None:
    tau = torch.arange(1, STEPS + 1, dtype=torch.float64)
    gamma, pull = 0.9, 0.5
    assert torch.equal(_rho("fedavg"), torch.ones(STEPS, dtype=torch.float64))
    sgdm = (1 - gamma ** (STEPS + 1 - tau)) / (1 - gamma)
    nag = (1 - gamma ** (STEPS + 2 - tau)) / (1 - gamma)
    leash = (1 - pull * ETA) ** (STEPS - tau)
    torch.testing.assert_close(_rho("fedavg", momentum=gamma), sgdm, rtol=1e-13, atol=0)
    nesterov = _rho("fedavg", momentum=gamma, nesterov=True)
    torch.testing.assert_close(nesterov, nag, rtol=1e-13, atol=0)
    for name in TAKES_LAMBDA:
        torch.testing.assert_close(_rho(name, pull=pull), leash, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_table_1_offset(name: str) -> None:
    """h in closed form, its sums over the rounds the client took part in."""
    pull = 0.5 if name in TAKES_LAMBDA else 0.0
    recursion = _recursion(name, STEPS, pull, {})
    scheme = SCHEMES[name].build(pull)
    kept = 1 - (1 - pull * ETA) ** STEPS
    for partial in (False, True):
        for one in play(scheme, recursion, 6, partial=partial).played:
            zeros = torch.zeros_like(one.states[0])
            updates = [done.end - done.start for done in one.past]
            total = sum(updates, zeros)
            variates = [done.server for done in one.past] + [one.server]
            controls = sum((c for c in variates if c is not None), zeros)
            closed = {
                "fedavg": zeros,
                "fedprox": zeros,
                "scaffold": ETA * STEPS * controls + total,
                "feddyn": kept * total,
                "feddc": kept * total,
            }[name]
            if name == "feddc" and one.past:
                last = one.past[-1]
                correction = updates[-1] - (last.after - last.start)
                closed = closed + kept / (pull * ETA * STEPS) * correction
            constant = scheme.constant(one.past, recursion.rate, one.server)
            directions = torch.stack([zeros, zeros if constant is None else constant, zeros])
            h = offset_weights(recursion)[-1] @ directions
            torch.testing.assert_close(h, closed, rtol=0, atol=1e-12)


def test_combinations_are_not_products() -> None:
    """FedProx with momentum is neither scheme's weights, nor their product."""
    pull, gamma = 5.0, 0.9
    both = _rho("fedprox", pull=pull, momentum=gamma)
    product = _rho("fedprox", pull=pull) * _rho("fedavg", momentum=gamma)
    assert float(((both - product) / both).abs().max()) > 0.5


def test_scaffold_server_value_follows_from_the_global_models() -> None:
    recursion = _recursion("scaffold", STEPS, 0.0, {})
    federation = play(SCHEMES["scaffold"].build(0.0), recursion, 5)
    for number in range(5):
        start, after = federation.globals_[number : number + 2]
        derived = derived_server_value(start, after, recursion.rate)
        torch.testing.assert_close(derived, federation.servers[number + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["fedprox", "feddyn"])
def test_lambda_zero_is_fedavg(name: str) -> None:
    recursion = _recursion("fedavg", STEPS, 0.0, {})
    plain = play(SCHEMES["fedavg"].build(0.0), recursion, 4)
    other = play(SCHEMES[name].build(0.0), recursion, 4)
    torch.testing.assert_close(plain.globals_, other.globals_, rtol=0, atol=1e-12)


def test_feddyn_server_moves_the_average_by_its_state() -> None:
    """With all clients, θ' = mean θ_k - h/λ and h = -λ/N Σ over all updates so far."""
    recursion = _recursion("feddyn", STEPS, 0.5, {})
    federation = play(SCHEMES["feddyn"].build(0.5), recursion, 4)
    moved = torch.zeros_like(federation.globals_[0])
    for members, start, after in zip(
        federation.rounds, federation.globals_, federation.globals_[1:], strict=False
    ):
        ends = torch.stack([one.states[-1] for one in members])
        moved = moved + (ends - start).sum(0) / CLIENTS
        torch.testing.assert_close(after, ends.mean(0) + moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_the_step_is_pytorchs_own(momentum: float, nesterov: bool, decay: float) -> None:
    if nesterov and not momentum:
        pytest.skip("PyTorch refuses Nesterov without momentum")
    generator = torch.Generator().manual_seed(2)
    origin, *gradients = torch.randn(9, 6, generator=generator, dtype=torch.float64)
    parameter = torch.nn.Parameter(origin.clone())
    optimiser = torch.optim.SGD(
        [parameter], lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=decay
    )
    recursion = Recursion((0.1,) * 8, momentum=momentum, nesterov=nesterov, decay=decay)
    states = list(path(recursion, origin, gradients))
    for gradient, state in zip(gradients, states[1:], strict=True):
        parameter.grad = gradient.clone()
        optimiser.step()
        torch.testing.assert_close(parameter.detach(), state, rtol=0, atol=1e-13)


def test_schedules() -> None:
    assert learning_rates(1.0, 3) == (1.0, 1.0, 1.0)
    assert learning_rates(1.0, 5, "step:2:0.5") == (1.0, 1.0, 0.5, 0.5, 0.25)
    assert learning_rates(1.0, 3, "linear:0") == (1.0, 0.5, 0.0)
    assert learning_rates(2.0, 3, "cosine:2") == pytest.approx((2.0, 1.0, 0.0))


@pytest.mark.parametrize(
    "text", ["", "step", "step:0:0.5", "step:2", "cosine:0", "linear:-1", "warmup:3", "step:a:b"]
)
def test_schedules_that_cannot_be(text: str) -> None:
    with pytest.raises(ValueError, match="constant, step:K:G"):
        learning_rates(0.1, 4, text)
