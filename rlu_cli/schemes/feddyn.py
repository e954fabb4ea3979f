"""FedDyn (Acar et al. 2021): dynamic regularisation (A.8)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlu_cli.schemes.scheme import Member, Round, Scheme, total, totals, weighted


@dataclass(frozen=True)
class FedDyn:
    """Task loss + λ/2 ‖θ - θ_global‖² - ⟨g_k, θ⟩ with g_k = -λ Σ_r Δ_k^(r) over its own rounds.

    The server keeps h = -λ/N Σ over all updates so far and subtracts h/λ from the average.

    pull  λ

    Paper note: Eq. 71 has the last gradient for g_k, which does not give Table 1. The state
    -λ Σ Δ does, as in FedDyn itself.
    """

    pull: float = 0.0

    def constant(self, past: Sequence[Round], rate: float, server: Any) -> Any:
        if not past or not self.pull:
            return None
        return total(done.end - done.start for done in past) * self.pull

    def aggregate(
        self, start: Any, members: Iterable[Member], server: Any, clients: int
    ) -> tuple[Any, Any]:
        average, moved = totals(members, weighted, lambda m: m.end - start)
        state = moved * (-self.pull / clients)
        state = state if server is None else server + state
        return (average - state * (1 / self.pull) if self.pull else average), state


SCHEME = Scheme(
    build=FedDyn,
    summary="task loss + λ/2 ‖θ - θ_global‖² + λ ⟨Σ Δ_k, θ⟩ over the client's own rounds",
    takes_lambda=True,
    remembers=True,
    server_keeps_value=True,
)
