"""Interface of a federated scheme: the client's half and the server's half.

Values are anything with +, - and scaling (a float, a Tensor, a `Head`, a `Bundle`): the simulator
runs a scheme on whole models, an attack on output layers alone.
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

    start   θ^(r), the global model it started from
    end     θ_k^(r), the model it sent
    after   θ^(r+1), the next global model
    rate    Σ_τ η_τ of its steps
    server  the server's own value in that round (Scaffold's c^(r)); None for none
    """

    start: Any
    end: Any
    after: Any
    rate: float
    server: Any = None


class SchemeRule(Protocol):
    """Computations of client and server under a scheme; λ, if any, is the field `pull`."""

    @property
    def pull(self) -> float:
        """λ of the proximal term; 0 without one."""
        ...

    def constant(self, past: Sequence[Round], rate: float, server: Any) -> Any:
        """Constant added to every gradient of a round; None for none.

        past    the client's own rounds, oldest first
        rate    Σ_τ η_τ of the coming round
        server  the server's current value; None for none yet
        """
        ...

    def aggregate(
        self, start: Any, members: Iterable[Member], server: Any, clients: int
    ) -> tuple[Any, Any]:
        """The next global model and the server's next value.

        start    θ^(r)
        members  participants; iterated once, so that they can be read from disk one by one
        clients  number of all clients
        """
        ...


@dataclass(frozen=True)
class Scheme:
    """One row of the table of schemes.

    build               λ → the scheme's rule
    summary             formula or description, for `rlu schemes`
    takes_lambda        whether it uses λ (`--lambda`)
    remembers           whether a client's step depends on its earlier rounds (`--history`)
    server_keeps_value  whether the server keeps a value of its own from round 1 on (server.pt)
    server_value        whether clients use that value, so that an attack needs it
    """

    build: Callable[[float], SchemeRule]
    summary: str
    takes_lambda: bool = False
    remembers: bool = False
    server_keeps_value: bool = False
    server_value: bool = False


@dataclass(frozen=True)
class Member:
    """One client in an aggregation.

    end    θ_k^(r), the model it sent
    share  its weight p_k in the average; all sum to 1
    past   its earlier rounds
    rate   Σ_τ η_τ of its steps
    """

    end: Any
    share: float
    past: Sequence[Round]
    rate: float


def weighted(member: Member) -> Any:
    """p_k θ_k, a client's term of the average (Eq. 1)."""
    return member.end * member.share


def totals(members: Iterable[Member], *parts: Callable[[Member], Any]) -> list[Any]:
    """Sum of each part over the members, in a single pass."""
    sums: list[Any] = []
    for member in members:
        values = [part(member) for part in parts]
        sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
    return sums


def total(values: Iterable[Any]) -> Any:
    """Sum of at least one value."""
    return functools.reduce(operator.add, values)
