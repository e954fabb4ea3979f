"""Rounds of a federation over simulated clients, resumable from what is on disk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlu_cli.errors import InputError
from rlu_cli.normalisation import Normalisation
from rlu_cli.simulator.accuracy import accuracy_on
from rlu_cli.simulator.aggregate import Sent, aggregate
from rlu_cli.simulator.client import LocalRound, copy_state, seeded, train_client, trainable
from rlu_cli.simulator.keep import keep_heads
from rlu_cli.simulator.memory import SERVER_REMEMBERS, Memory, incomplete
from rlu_cli.simulator.partition import Partition
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.pretrain import LR, not_reached, pretrain
from rlu_cli.simulator.private import epsilon, require_private
from rlu_cli.simulator.run_folder import RunFolder
from rlu_cli.simulator.trial import check_fit


@dataclass(frozen=True)
class Federation:
    """Everything a round needs besides the weights."""

    plan: Plan
    holding: Holding
    partition: Partition
    normalise: Normalisation
    device: torch.device
    pretrain_lr: float = LR

    def own(self, client: int) -> NDArray[np.int64]:
        """The images a client uses: all that it owns, or the plan's number of them."""
        owned, samples = self.partition.owned[client], self.plan.local.samples
        if samples is None:
            return owned
        rng = np.random.default_rng((self.plan.seed, 6, client))
        return np.sort(rng.permutation(owned)[:samples])


@dataclass(frozen=True)
class Round:
    """One round that is complete on disk.

    accuracy        of the global model the round started from, on the test images
    reused          how many clients were on disk already
    clients         who was trained; nobody for the model that the last round left
    train_accuracy  of that global model on the clients' images, where the plan asks for it
    """

    number: int
    accuracy: float
    reused: int
    clients: tuple[int, ...] = ()
    train_accuracy: float | None = None


@dataclass(frozen=True)
class _Work:
    """A federation under way: one model that takes every role in turn, and the folder."""

    federation: Federation
    model: nn.Module
    run: RunFolder
    tick: Callable[[int], None]

    @property
    def plan(self) -> Plan:
        return self.federation.plan


def federate(
    federation: Federation,
    factory: Callable[[], nn.Module],
    run: RunFolder,
    *,
    tick: Callable[[int], None] = lambda steps: None,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Round]:
    """Train round after round, writing every model and every truth as soon as it is known.

    factory  makes the model with its starting weights; what it draws comes from the run's seed
    run      what is complete there is not computed again
    tick     called with the number of steps done
    say      called with what is going on
    Raises InputError E241 when an accuracy that the plan asks for is not reached.
    """
    plan = federation.plan
    with seeded((plan.seed, 3), federation.device):
        model = factory()
    _check(model, federation)
    model.to(federation.device)
    work = _Work(federation, model, run, tick)
    if run.read_global(0) is None:
        _start(work, say)
    number = yield from _rounds(work, say)
    if plan.keep == "heads":
        keep_heads(run, number)
    if plan.defence.dp_noise is not None:
        run.note("privacy", _privacy_spent(federation, number))
    if plan.only is None:
        yield Round(number + 1, _accuracy(work, number + 1), 0)


def _check(model: nn.Module, federation: Federation) -> None:
    plan, holding = federation.plan, federation.holding
    smallest = min(plan.steps.batch_sizes or (plan.batch_size,))
    classes = len(holding.class_names)
    check_fit(model, federation.normalise, holding.test_images, classes, smallest)
    if plan.defence.dp_noise is not None:
        require_private(model)


def _start(work: _Work, say: Callable[[str], None]) -> None:
    """Write the global model of round 0, drawn or pretrained."""
    plan, holding = work.plan, work.federation.holding
    if plan.pretrain is not None:
        done = pretrain(
            work.model,
            holding.client_images,
            holding.client_labels,
            target=plan.pretrain,
            lr=work.federation.pretrain_lr,
            normalise=work.federation.normalise,
            seed=(plan.seed, 7),
            say=say,
        )
        work.run.note("pretrain", asdict(done))
    work.run.write_global(0, copy_state(work.model))


def _rounds(work: _Work, say: Callable[[str], None]) -> Generator[Round, None, int]:
    """Yield each round; return the number of the last."""
    number = 0
    while True:
        reached = _train_accuracy(work, number) if work.plan.train_to is not None else None
        last = _is_last(work.plan, number, reached)
        said = "" if reached is None else f", training accuracy {reached:.3f}"
        say(f"round {number}{said}")
        yield _one_round(work, number, reached, last=last)
        if last:
            return number
        number += 1


def _is_last(plan: Plan, number: int, reached: float | None) -> bool:
    """Whether round `number` is the one to attack. Raises InputError E241 when none will be."""
    if plan.train_to is None or reached is None:
        return number == plan.rounds - 1
    if reached < plan.train_to and number == plan.rounds:
        raise not_reached(f"{number} rounds", plan.train_to, reached)
    return reached >= plan.train_to


def _one_round(work: _Work, number: int, reached: float | None, *, last: bool) -> Round:
    plan, run = work.plan, work.run
    clients = plan.trained(number, last=last)
    missing = [client for client in clients if run.read_client(number, client) is None]
    work.tick(plan.steps.steps * (len(clients) - len(missing)))
    _require_memory(work, number, needed=bool(missing))
    for client in missing:
        _load_global(work, number)
        run.write_client(number, client, _train(work, number, client))
    accuracy = _accuracy(work, number)
    if not (last and plan.only is not None) and not _is_started(work, number + 1):
        _close(work, number, clients)
    run.write_round(number, _record(plan, accuracy, reached))
    return Round(number, accuracy, len(clients) - len(missing), clients, reached)


def _record(plan: Plan, accuracy: float, reached: float | None) -> dict[str, Any]:
    """What round.json says of the round itself."""
    recursion = plan.recursion
    return {
        "total_clients": plan.clients,
        "lr": recursion.lr[0],
        "rate": recursion.rate,
        "steps": recursion.steps,
        "accuracy": accuracy,
        **({} if reached is None else {"train_accuracy": reached}),
    }


def _train(work: _Work, number: int, client: int) -> LocalRound:
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
            constant=plan.scheme.constant(past, plan.recursion.rate, server),
            tick=work.tick,
        )
    except InputError as error:
        where = f"round {number}, client {client}: {error.message}"
        raise InputError(error.code, where, hint=error.hint) from error


def _close(work: _Work, number: int, clients: tuple[int, ...]) -> None:
    """Aggregate what the clients sent into the next round's start."""
    plan, run = work.plan, work.run
    names = tuple(trainable(work.model, aliases=True))
    memory = Memory(run, plan, names, torch.device("cpu"), torch.float64)
    sent = (Sent(run.require_client(number, k), memory.past(k, number)) for k in clients)
    following = aggregate(
        plan.scheme,
        names,
        run.require_global(number),
        sent,
        members=len(clients),
        rate=plan.recursion.rate,
        server=memory.server(number),
        clients=plan.clients,
    )
    run.write_global(number + 1, *following)


def _is_started(work: _Work, number: int) -> bool:
    """Whether all that round `number` starts from is there."""
    whole = work.run.read_global(number) is not None
    remembers = work.plan.local.scheme in SERVER_REMEMBERS
    return whole and (not remembers or work.run.read_server(number) is not None)


def _require_memory(work: _Work, number: int, *, needed: bool) -> None:
    """Raises UsageError E106 where earlier rounds are needed and only their heads are left."""
    if needed and number and work.plan.scheme.remembers:
        first = work.run.require_global(0)
        if not set(trainable(work.model)) <= set(first):
            raise incomplete(work.run.global_file(0))


def _load_global(work: _Work, number: int) -> None:
    state = work.run.require_global(number)
    if set(state) != set(work.model.state_dict()):
        raise incomplete(work.run.global_file(number))
    work.model.load_state_dict(state)


def _accuracy(work: _Work, number: int) -> float:
    """Of the global model of round `number` on the test images."""
    holding = work.federation.holding
    return _measured(work, number, "accuracy", holding.test_images, holding.test_labels)


def _train_accuracy(work: _Work, number: int) -> float:
    """Of the global model of round `number` on the clients' images together."""
    holding = work.federation.holding
    return _measured(work, number, "train_accuracy", holding.client_images, holding.client_labels)


def _measured(
    work: _Work, number: int, name: str, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> float:
    recorded = work.run.recorded_accuracy(number, name)
    if recorded is not None:
        return recorded
    _load_global(work, number)
    return accuracy_on(work.model, images, labels, work.federation.normalise)


def _privacy_spent(federation: Federation, last: int) -> list[dict[str, float]]:
    """ε of every client after its rounds up to `last`, at δ = 1 / (its images)."""
    plan = federation.plan
    assert plan.defence.dp_noise is not None
    spent = []
    for client in range(plan.clients):
        samples = len(federation.own(client))
        rounds = sum(client in plan.drawn(number) for number in range(last + 1))
        sizes = (plan.steps.batch_sizes or ()) * rounds
        value = epsilon(plan.defence.dp_noise, sizes, samples, 1 / samples) if rounds else 0.0
        row = {"client": client, "rounds": rounds, "epsilon": value, "delta": 1 / samples}
        spent.append(row)
    return spent
