"""The settings of a simulation, and their validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlu_cli.errors import UsageError
from rlu_cli.local_training.step_plan import StepPlan, plan_steps
from rlu_cli.schemes import SCHEMES, Recursion, Scheme, SchemeRule, learning_rates
from rlu_cli.simulator.defences import Defence
from rlu_cli.simulator.local import Local

KEEP = ("all", "heads")


@dataclass(frozen=True)
class Plan:
    """The settings of a simulation.

    epochs          of each client's round: one mini-batch each, or a full pass with local.samples
    rounds          number of rounds; with `train_to`, the most rounds before the one to attack
    only            clients to train in the last round, all when None
    local           local training of each client
    defence         defences of each client
    sample_clients  number of clients that take part in a round, all when None
    pretrain        training accuracy to reach by centralised training before round 0
    train_to        training accuracy of the global model before the last round
    keep            "heads" keeps only the output layers of past rounds
    """

    clients: int = 10
    alpha: float = 0.5
    lr: float = 0.01
    batch_size: int = 32
    epochs: int = 1
    rounds: int = 1
    seed: int = 0
    only: tuple[int, ...] | None = None
    local: Local = field(default_factory=Local)
    defence: Defence = field(default_factory=Defence)
    sample_clients: int | None = None
    pretrain: float | None = None
    train_to: float | None = None
    keep: str = KEEP[0]

    @property
    def steps(self) -> StepPlan:
        """The steps of each client's round and the sizes of their batches."""
        local = self.local
        given = (self.epochs, self.batch_size, local.samples, local.steps_per_epoch)
        return plan_steps(*given, drop_last=local.drop_last)

    @property
    def scheme(self) -> Scheme:
        """The row of the table of schemes."""
        return SCHEMES[self.local.scheme]

    @property
    def rule(self) -> SchemeRule:
        """The computations of client and server in the scheme, λ included."""
        return self.scheme.build(self.local.pull)

    @property
    def recursion(self) -> Recursion:
        """The client's steps as `rlu attack` models them."""
        return Recursion(
            lr=learning_rates(self.lr, self.steps.steps, self.local.lr_schedule),
            momentum=self.local.momentum,
            nesterov=self.local.nesterov,
            decay=self.local.weight_decay,
            pull=self.rule.pull,
        )

    def drawn(self, number: int) -> tuple[int, ...]:
        """The clients that take part in round `number`."""
        if self.sample_clients is None:
            return tuple(range(self.clients))
        rng = np.random.default_rng((self.seed, 5, number))
        drawn = rng.choice(self.clients, self.sample_clients, replace=False)
        return tuple(sorted(drawn.tolist()))

    def trained(self, number: int, *, last: bool) -> tuple[int, ...]:
        """The clients that are trained in round `number`: in the last one only those in `only`.

        Raises UsageError E106 when none of those takes part.
        """
        drawn = self.drawn(number)
        if not last or self.only is None:
            return drawn
        chosen = tuple(client for client in drawn if client in self.only)
        if not chosen:
            raise UsageError(
                "E106",
                f"no client of --only-clients takes part in round {number}",
                hint=f"these do: {', '.join(map(str, drawn))}",
            )
        return chosen

    def settings(self) -> dict[str, Any]:
        """All that the results depend on, as JSON values; defaults are listed for six names only.

        Settings that may change when a run is resumed are omitted: `rounds`, `train_to`, `only` and
        `keep`.
        """
        names = ("clients", "alpha", "lr", "batch_size", "epochs", "seed")
        optional = {
            name: getattr(self, name)
            for name in ("sample_clients", "pretrain")
            if getattr(self, name) is not None
        }
        local = {k: list(v) if k == "betas" else v for k, v in self.local.settings().items()}
        first = {name: getattr(self, name) for name in names}
        return {**first, **optional, **local, **self.defence.settings()}


def check_plan(plan: Plan) -> None:
    """Raises UsageError E101, which lists all invalid values, or E106 for contradictions."""
    _refuse("E101", [*_impossible(plan), *plan.local.impossible(), *plan.defence.impossible()])
    contradictions = plan.defence.contradictions(plan.local.clip)
    _refuse("E106", [*plan.local.contradictions(), *contradictions])
    try:
        learning_rates(plan.lr, plan.steps.steps, plan.local.lr_schedule)
    except ValueError as expected:
        _refuse("E101", [f"lr-schedule must be {expected}"])
    if plan.train_to is None:
        plan.trained(plan.rounds - 1, last=True)


def _impossible(plan: Plan) -> list[str]:
    whole = ("clients", "batch_size", "epochs", "rounds")
    wrong = [f"{name} must be at least 1" for name in whole if getattr(plan, name) < 1]
    cases = {
        "alpha must lie between 0.001 and 1e6": not 1e-3 <= plan.alpha <= 1e6,
        "lr must be positive": not 0 < plan.lr < math.inf,
        "seed must not be negative": plan.seed < 0,
        f"only-clients must name clients from 0 to {plan.clients - 1}": (
            plan.only is not None and not (plan.only and set(plan.only) <= set(range(plan.clients)))
        ),
        f"sample-clients must lie between 1 and {plan.clients}": (
            plan.sample_clients is not None and not 1 <= plan.sample_clients <= plan.clients
        ),
        "pretrain must be an accuracy above 0, at most 1": not _is_share(plan.pretrain),
        "train-to must be an accuracy above 0, at most 1": not _is_share(plan.train_to),
        f"keep must be one of {', '.join(KEEP)}": plan.keep not in KEEP,
    }
    return wrong + [sentence for sentence, holds in cases.items() if holds]


def _is_share(value: float | None) -> bool:
    return value is None or 0 < value <= 1


def _refuse(code: str, sentences: Sequence[str]) -> None:
    if sentences:
        raise UsageError(code, "; ".join(sentences), hint="see rlu simulate --help")
