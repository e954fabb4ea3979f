"""Server aggregation: the scheme's rule for parameters, the plain mean for all other tensors."""

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
    """The model that one client sent, and its earlier rounds."""

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
    sent     one for each client that took part, all with the same number of samples; iterated once
    members  number of clients that took part
    rate     Σ of a client's learning rates
    server   Bundle of the server's current value; None if there is none
    clients  number of clients in the federation
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

    states   one mapping of tensors per client, with equal names and shapes
    samples  n_k, number of samples each client trained on
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
    """The named tensors as one Bundle, in float64 for accurate sums over clients and rounds."""
    return Bundle(state[name].to(torch.float64) for name in names)


def state_of(value: Bundle, names: Sequence[str], like: State) -> State:
    """A bundle's tensors by name, in the types of `like`."""
    pairs = zip(names, value.tensors, strict=True)
    return {name: tensor.to(like[name].dtype) for name, tensor in pairs}
