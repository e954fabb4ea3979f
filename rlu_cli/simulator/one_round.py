"""One round: train its clients, aggregate their models, write both."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlu_cli.errors import InputError
from rlu_cli.simulator.accuracy import accuracy_on
from rlu_cli.simulator.aggregate import Sent, aggregate
from rlu_cli.simulator.client import LocalRound, train_client, trainable
from rlu_cli.simulator.keep import keep_heads
from rlu_cli.simulator.memory import Memory, incomplete
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.work import Round, Work


def one_round(work: Work, number: int, reached: float | None, *, last: bool) -> Round:
    """Complete round `number`, reusing the clients that are on disk.

    reached  training accuracy of the model it starts from; None unless the plan asks for it
    last     whether it is the round to attack, in which the plan may train only some clients
    """
    plan, run = work.plan, work.run
    clients = plan.trained(number, last=last)
    missing = [client for client in clients if run.read_client(number, client) is None]
    work.tick(plan.steps.steps * (len(clients) - len(missing)))
    _require_memory(work, number, needed=bool(missing))
    for client in missing:
        _load_global(work, number)
        run.write_client(number, client, _train(work, number, client))
    measured = accuracy(work, number)
    if not (last and plan.only is not None) and not _is_started(work, number + 1):
        _close(work, number, clients)
    run.write_round(number, _record(plan, measured, reached))
    if plan.keep == "heads" and number and not plan.scheme.remembers:
        keep_heads(run, number, [number - 1])  # at once: many rounds of a large model fill a disk
    return Round(number, measured, len(clients) - len(missing), clients, reached)


def _record(plan: Plan, accuracy: float, reached: float | None) -> dict[str, Any]:
    """The entries of round.json on the round itself."""
    recursion = plan.recursion
    return {
        "total_clients": plan.clients,
        "lr": recursion.lr[0],
        "rate": recursion.rate,
        "steps": recursion.steps,
        "accuracy": accuracy,
        **({} if reached is None else {"train_accuracy": reached}),
    }


def _train(work: Work, number: int, client: int) -> LocalRound:
    federation, plan = work.federation, work.plan
    own, parameters = federation.own(client), trainable(work.model)
    dtype = next(iter(parameters.values())).dtype
    memory = Memory(work.run, plan, tuple(parameters), federation.device, dtype)
    past, server = memory.past(client, number), memory.server(number)
    try:
        return train_client(
            work.model,
            federation.holding.client_images[own],
            federation.holding.client_labels[own],
            plan,
            classes=len(federation.holding.class_names),
            normalise=federation.normalise,
            seed=(plan.seed, 4, number, client),
            constant=plan.rule.constant(past, plan.recursion.rate, server),
            tick=work.tick,
        )
    except InputError as error:
        where = f"round {number}, client {client}: {error.message}"
        raise InputError(error.code, where, hint=error.hint) from error


def _close(work: Work, number: int, clients: tuple[int, ...]) -> None:
    """Aggregate the clients' models into the next global model."""
    plan, run = work.plan, work.run
    names = tuple(trainable(work.model, aliases=True))
    memory = Memory(run, plan, names, torch.device("cpu"), torch.float64)
    sent = (Sent(run.require_client(number, k), memory.past(k, number)) for k in clients)
    following = aggregate(
        plan.rule,
        names,
        run.require_global(number),
        sent,
        members=len(clients),
        rate=plan.recursion.rate,
        server=memory.server(number),
        clients=plan.clients,
    )
    run.write_global(number + 1, *following)


def _is_started(work: Work, number: int) -> bool:
    """Whether all files that round `number` starts from are complete."""
    whole = work.run.read_global(number) is not None
    keeps_value = work.plan.scheme.server_keeps_value
    return whole and (not keeps_value or work.run.read_server(number) is not None)


def _require_memory(work: Work, number: int, *, needed: bool) -> None:
    """Raises UsageError E106 if earlier rounds are needed and only their heads are left."""
    if needed and number and work.plan.scheme.remembers:
        first = work.run.require_global(0)
        if not set(trainable(work.model)) <= set(first):
            raise incomplete(work.run.global_file(0))


def _load_global(work: Work, number: int) -> None:
    state = work.run.require_global(number)
    if set(state) != set(work.model.state_dict()):
        raise incomplete(work.run.global_file(number))
    work.model.load_state_dict(state)


def accuracy(work: Work, number: int) -> float:
    """Accuracy of the global model of round `number` on the test images."""
    holding = work.federation.holding
    return _measured(work, number, "accuracy", holding.test_images, holding.test_labels)


def train_accuracy(work: Work, number: int) -> float:
    """Accuracy of the global model of round `number` on the clients' images together."""
    holding = work.federation.holding
    return _measured(work, number, "train_accuracy", holding.client_images, holding.client_labels)


def _measured(
    work: Work, number: int, name: str, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> float:
    recorded = work.run.recorded_accuracy(number, name)
    if recorded is not None:
        return recorded
    _load_global(work, number)
    return accuracy_on(work.model, images, labels, work.federation.normalise)
