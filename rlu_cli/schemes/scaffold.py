"""Scaffold (Karimireddy et al. 2020): control variates against client drift (A.7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlu_cli.schemes.scheme import Member, Round, Scheme, totals, weighted


@dataclass(frozen=True)
class Scaffold:
    """Each gradient is corrected by c - c_k, the control variates of the server and the client.

    After a round c_k becomes c_k - c + (θ_global - θ_k) / Σ η (option II), and c grows by the mean
    change of the participants' c_k times the participating share of the clients. Both start at 0.

    Paper note: the sums of Table 1's h run over the rounds the client took part in, not over all.
    """

    pull: float = 0.0

    def constant(self, past: Sequence[Round], rate: float, server: Any) -> Any:
        own = control_variate(past)
        if own is None:
            return server
        return own * -1.0 if server is None else server - own

    def aggregate(
        self, start: Any, members: Iterable[Member], server: Any, clients: int
    ) -> tuple[Any, Any]:
        average, change = totals(members, weighted, lambda m: self._change(start, m, server))
        grown = change * (1 / clients)
        return average, grown if server is None else server + grown

    def _change(self, start: Any, member: Member, server: Any) -> Any:
        """Change of a client's control variate over the round."""
        change = (start - member.end) * (1 / member.rate)
        return change if server is None else change - server


def control_variate(past: Sequence[Round]) -> Any:
    """c_k after the rounds in `past`: each adds (θ^(r) - θ_k^(r)) / Σ η - c^(r); None for none."""
    value = None
    for done in past:
        change = (done.start - done.end) * (1 / done.rate)
        if done.server is not None:
            change = change - done.server
        value = change if value is None else value + change
    return value


def derived_server_value(start: Any, after: Any, rate: float) -> Any:
    """c^(r+1) under full participation and plain averaging: (θ^(r) - θ^(r+1)) / Σ η."""
    return (start - after) * (1 / rate)


SCHEME = Scheme(
    build=lambda pull: Scaffold(),
    summary="gradients corrected by c - c_k, the server's and the client's control variate",
    remembers=True,
    server_keeps_value=True,
    server_value=True,
)
