"""FedAvg (McMahan et al. 2017) and FedProx (Li et al. 2020): plain averaging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlu_cli.schemes.scheme import Member, Round, Scheme, totals, weighted


@dataclass(frozen=True)
class FedProx:
    """Task loss + λ/2 ‖θ - θ_global‖²; FedAvg is λ = 0 (A.6: ρ = (1 - λη)^{m-τ}, h = 0).

    pull  λ
    """

    pull: float = 0.0

    def constant(self, past: Sequence[Round], rate: float, server: Any) -> Any:
        return None

    def aggregate(
        self, start: Any, members: Iterable[Member], server: Any, clients: int
    ) -> tuple[Any, Any]:
        (average,) = totals(members, weighted)
        return average, None


FEDAVG = Scheme(build=lambda pull: FedProx(), summary="plain averaging of the clients' models")
FEDPROX = Scheme(build=FedProx, summary="task loss + λ/2 ‖θ - θ_global‖²", takes_lambda=True)
