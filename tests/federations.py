"""Federations on arbitrary gradients: what a scheme's client and server do, round by round."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rlu_cli.schemes import Member, Recursion, Round, SchemeRule, path

SIZE = 5
CLIENTS = 4


@dataclass(frozen=True)
class Played:
    """One client's round.

    client     which one
    number     of the round
    past       its own rounds before, oldest first
    server     the server's value at the start
    gradients  what it was given
    states     θ^0 … θ^m
    everybody  whether all clients took part in every round so far
    """

    client: int
    number: int
    past: tuple[Round, ...]
    server: Tensor | None
    gradients: list[Tensor]
    states: list[Tensor]


@dataclass(frozen=True)
class Federation:
    """Everything that happened, and the global models θ^(0) … θ^(rounds)."""

    rounds: list[list[Played]]
    globals_: list[Tensor]
    servers: list[Tensor | None]

    @property
    def played(self) -> list[Played]:
        return [one for members in self.rounds for one in members]


def play(
    scheme: SchemeRule, recursion: Recursion, rounds: int, *, partial: bool = False, seed: int = 0
) -> Federation:
    """Several rounds in which every gradient is drawn at random, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(SIZE, generator=generator, dtype=torch.float64)

    position, server = draw(), None
    past: list[list[Round]] = [[] for _ in range(CLIENTS)]
    done: list[list[Played]] = []
    globals_: list[Tensor] = [position]
    servers: list[Tensor | None] = [server]
    for number in range(rounds):
        members = _members(number, partial=partial)
        played = []
        for client in members:
            gradients = [draw() for _ in range(recursion.steps)]
            constant = scheme.constant(past[client], recursion.rate, server)
            states = list(path(recursion, position, gradients, constant))
            before = tuple(past[client])
            played.append(Played(client, number, before, server, gradients, states))
        parts = [
            Member(one.states[-1], 1 / len(played), one.past, recursion.rate) for one in played
        ]
        following, next_server = scheme.aggregate(position, parts, server, CLIENTS)
        for one in played:
            end = one.states[-1]
            past[one.client].append(Round(position, end, following, recursion.rate, server))
        position, server = following, next_server
        done.append(played)
        globals_.append(position)
        servers.append(server)
    return Federation(done, globals_, servers)


def _members(number: int, *, partial: bool) -> list[int]:
    """All clients, or a different half of them every round."""
    if not partial:
        return list(range(CLIENTS))
    halves = [[0, 1], [1, 2], [0, 3], [2, 3]]
    return halves[number % len(halves)]


def movements(states: list[Tensor]) -> list[Tensor]:
    """θ^{τ+1} - θ^τ."""
    return [after - before for before, after in pairwise(states)]
