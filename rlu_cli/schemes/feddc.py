"""FedDC (Gao et al. 2022): local drift decoupling and correction (A.9)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlu_cli.schemes.scheme import Member, Round, Scheme, total, totals


@dataclass(frozen=True)
class FedDC:
    """Task loss + λ/2 ‖θ - (θ_global - d_k)‖² + ⟨θ, Δ_k - Δ⟩ / Σ η, d_k = Σ_r Δ_k^(r).

    Δ_k and Δ are the client's and the global update of the last round it took part in. d_k is its
    drift variable. The server averages θ_k + d_k, with d_k including this round.

    pull  λ
    """

    pull: float = 0.0

    def constant(self, past: Sequence[Round], rate: float, server: Any) -> Any:
        if not past:
            return None
        drift = total(done.end - done.start for done in past)
        last = past[-1]
        correction = ((last.end - last.start) - (last.after - last.start)) * (1 / rate)
        return correction + drift * self.pull if self.pull else correction

    def aggregate(
        self, start: Any, members: Iterable[Member], server: Any, clients: int
    ) -> tuple[Any, Any]:
        (average,) = totals(members, lambda m: (m.end + self._drift(start, m)) * m.share)
        return average, None

    def _drift(self, start: Any, member: Member) -> Any:
        """d_k after this round."""
        return total([member.end - start, *(done.end - done.start for done in member.past)])


SCHEME = Scheme(
    build=FedDC,
    summary="task loss + λ/2 ‖θ - (θ_global - d_k)‖² + ⟨θ, Δ_k - Δ⟩ / Σ η",
    takes_lambda=True,
    remembers=True,
)
