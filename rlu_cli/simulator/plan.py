"""What a simulation is asked to do, and which of it is possible."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlu_cli.errors import UsageError


@dataclass(frozen=True)
class Plan:
    """What a simulation is asked to do.

    epochs  m, the steps of one mini-batch each client takes in a round
    only    clients to train, all when None; a subset is possible in a single round only
    """

    clients: int = 10
    alpha: float = 0.5
    lr: float = 0.01
    batch_size: int = 32
    epochs: int = 1
    rounds: int = 1
    seed: int = 0
    only: tuple[int, ...] | None = None

    @property
    def trained(self) -> tuple[int, ...]:
        return tuple(range(self.clients)) if self.only is None else self.only


def check_plan(plan: Plan) -> None:
    """Raises UsageError E101 that lists all impossible values, E106 for a contradiction."""
    whole = ("clients", "batch_size", "epochs", "rounds")
    wrong = [f"{name} must be at least 1" for name in whole if getattr(plan, name) < 1]
    if not (math.isfinite(plan.alpha) and 1e-3 <= plan.alpha <= 1e6):
        wrong.append("alpha must lie between 0.001 and 1e6")
    if not (math.isfinite(plan.lr) and plan.lr > 0):
        wrong.append("lr must be positive")
    if plan.seed < 0:
        wrong.append("seed must not be negative")
    if plan.only is not None and not (plan.only and set(plan.only) <= set(range(plan.clients))):
        wrong.append(f"only-clients must name clients from 0 to {plan.clients - 1}")
    if wrong:
        raise UsageError("E101", "; ".join(wrong), hint="see rlu simulate --help")
    if plan.rounds > 1 and plan.only is not None:
        raise UsageError(
            "E106",
            "averaging needs all clients, so that --only-clients goes with one round only",
            hint="leave out --only-clients or --rounds",
        )
