"""What every federated scheme says of itself: the client's half and the server's half.

Values are anything with + - and scaling (a float, a Tensor, a `Head`, a `Bundle`), so that the
simulator runs a scheme on whole models and the server's derivation on output layers alone.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Round:
    """One round that a client took part in.

    start   θ^(r), the global model it began with
    end     θ_k^(r), what it sent back
    after   θ^(r+1), the global model that followed
    rate    Σ_τ η_τ of its steps
    server  the server's own value in that round (Scaffold's c^(r)); None where there is none
    """

    start: Any
    end: Any
    after: Any
    rate: float
    server: Any = None


class SchemeRule(Protocol):
    """What client and server compute under a scheme; λ, where it has one, is the field `pull`."""

    @property
    def pull(self) -> float:
        """λ of the proximal term, 0 without one."""
        ...

    def constant(self, past: Sequence[Round], rate: float, server: Any) -> Any:
        """What joins every gradient of a round; None for nothing.

        past    the client's own rounds, oldest first
        rate    Σ_τ η_τ of the round to come
        server  the server's value now; None for nothing yet
        """
        ...

    def aggregate(
        self, start: Any, members: Iterable[Member], server: Any, clients: int
    ) -> tuple[Any, Any]:
        """The next global model and the server's next value.

        start    θ^(r)
        members  who took part; gone through once, so that they may be read from disk one by one
        clients  all clients there are
        """
        ...


@dataclass(frozen=True)
class Scheme:
    """One row of the table of schemes.

    build               λ → the scheme's rule
    summary             what it computes, for `rlu schemes`
    takes_lambda        whether λ (`--lambda`) means something to it
    remembers           whether a client's step depends on its earlier rounds (`--history`)
    server_keeps_value  whether the server has a value of its own from round 1 on (server.pt)
    server_value        whether clients see that value, so that an attack must know it
    """

    build: Callable[[float], SchemeRule]
    summary: str
    takes_lambda: bool = False
    remembers: bool = False
    server_keeps_value: bool = False
    server_value: bool = False


@dataclass(frozen=True)
class Member:
    """One client's part in an aggregation.

    end    θ_k^(r), what it sent back
    share  its weight in the average; all sum to 1
    past   its own rounds before this one
    rate   Σ_τ η_τ of its steps
    """

    end: Any
    share: float
    past: Sequence[Round]
    rate: float


def weighted(member: Member) -> Any:
    """p_k θ_k, a client's part of the average (Eq. 1)."""
    return member.end * member.share


def totals(members: Iterable[Member], *parts: Callable[[Member], Any]) -> list[Any]:
    """Σ over the members of each part, in one pass over them."""
    sums: list[Any] = []
    for member in members:
        values = [part(member) for part in parts]
        sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
    return sums


def total(values: Iterable[Any]) -> Any:
    """Σ of at least one value."""
    return functools.reduce(operator.add, values)
