"""From what the clients sent to the next global model: the scheme's rule for the parameters, the
plain mean for everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlu_cli.schemes import Bundle, Member, Round, SchemeRule
from rlu_cli.simulator.client import State


@dataclass(frozen=True)
class Sent:
    """What one client sent, and its own earlier rounds."""

    state: State
    past: Sequence[Round]


def aggregate(
    scheme: SchemeRule,
    names: Sequence[str],
    start: State,
    sent: Iterable[Sent],
    *,
    members: int,
    rate: float,
    server: Any,
    clients: int,
) -> tuple[State, State | None]:
    """The next global model, and the server's next value of each parameter or None.

    names    of the parameters, under all their names; buffers and frozen parameters are averaged
    start    the global model of this round
    sent     one for each of the `members` clients that took part, all of the same number of
             samples; gone through once
    rate     Σ of a client's learning rates
    server   Bundle of the server's value now, None for nothing yet
    clients  all there are
    """
    rest: list[State] = []

    def taking_part() -> Iterator[Member]:
        for one in sent:
            rest.append({name: v for name, v in one.state.items() if name not in known})
            yield Member(bundle(one.state, names), 1 / members, one.past, rate)

    known = set(names)
    after, following = scheme.aggregate(bundle(start, names), taking_part(), server, clients)
    moved, plain = state_of(after, names, start), average(rest, [1] * members)
    whole = {name: moved[name] if name in known else plain[name] for name in start}
    return whole, None if following is None else state_of(following, names, start)


def average(states: Iterable[State], samples: Sequence[int]) -> State:
    """θ_g = Σ_k n_k θ_k / Σ_k n_k over all state; counters as the rounded mean.

    states   one mapping of tensors for each client, all alike
    samples  n_k, how many samples each client trained on
    """
    total = float(sum(samples))
    summed: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for state, count in zip(states, samples, strict=True):
        for name, value in state.items():
            part = value.to(torch.float64) * (count / total)
            summed[name] = summed[name] + part if name in summed else part
            types[name] = value.dtype
    return {
        name: (value if types[name].is_floating_point else value.round()).to(types[name])
        for name, value in summed.items()
    }


def bundle(state: State, names: Sequence[str]) -> Bundle:
    """The named tensors as one, in float64 so that sums over clients and rounds stay exact."""
    return Bundle(state[name].to(torch.float64) for name in names)


def state_of(value: Bundle, names: Sequence[str], like: State) -> State:
    """A bundle's tensors by name, in the types that `like` has."""
    pairs = zip(names, value.tensors, strict=True)
    return {name: tensor.to(like[name].dtype) for name, tensor in pairs}
