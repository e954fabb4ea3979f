"""Rounds of a federation over simulated clients, resumable from what is on disk."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict

from torch import nn

from rlu_cli.simulator.client import copy_state, seeded
from rlu_cli.simulator.keep import keep_heads
from rlu_cli.simulator.one_round import accuracy, one_round, train_accuracy
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pretrain import not_reached, pretrain
from rlu_cli.simulator.private import epsilon, require_private
from rlu_cli.simulator.run_folder import RunFolder
from rlu_cli.simulator.trial import check_fit
from rlu_cli.simulator.work import Federation, Round, Work


def federate(
    federation: Federation,
    factory: Callable[[], nn.Module],
    run: RunFolder,
    *,
    tick: Callable[[int], None] = lambda steps: None,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Round]:
    """Train round by round, writing every model and its true labels as soon as it is trained.

    factory   builds the model with its initial weights, drawn from the run's seed
    run       run folder; complete files in it are not computed again
    tick      called with the number of steps done
    progress  called with messages
    Raises InputError E241 when a training accuracy of the plan is not reached.
    """
    plan = federation.plan
    with seeded((plan.seed, 3), federation.device):
        model = factory()
    _check(model, federation)
    model.to(federation.device)
    work = Work(federation, model, run, tick)
    if run.read_global(0) is None:
        _start(work, progress)
    number = yield from _rounds(work, progress)
    if plan.keep == "heads":
        keep_heads(run, number, range(number))
    if plan.defence.dp_noise is not None:
        run.note("privacy", _privacy_spent(federation, number))
    if plan.only is None:
        yield Round(number + 1, accuracy(work, number + 1), 0)


def _check(model: nn.Module, federation: Federation) -> None:
    plan, holding = federation.plan, federation.holding
    smallest = min(plan.steps.batch_sizes or (plan.batch_size,))
    classes = len(holding.class_names)
    check_fit(model, federation.normalise, holding.test_images, classes, smallest)
    if plan.defence.dp_noise is not None:
        require_private(model)


def _start(work: Work, progress: Callable[[str], None]) -> None:
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
            checks=work.federation.pretrain_checks,
            progress=progress,
        )
        work.run.note("pretrain", asdict(done))
    work.run.write_global(0, copy_state(work.model))


def _rounds(work: Work, progress: Callable[[str], None]) -> Generator[Round, None, int]:
    """Yield each round; return the number of the last."""
    number = 0
    while True:
        reached = train_accuracy(work, number) if work.plan.train_to is not None else None
        last = _is_last(work.plan, number, reached)
        suffix = "" if reached is None else f", training accuracy {reached:.3f}"
        progress(f"round {number}{suffix}")
        yield one_round(work, number, reached, last=last)
        if last:
            return number
        number += 1


def _is_last(plan: Plan, number: int, reached: float | None) -> bool:
    """Whether round `number` is the one to attack.

    Raises InputError E241 when `train_to` is not reached within the plan's rounds.
    """
    if plan.train_to is None or reached is None:
        return number == plan.rounds - 1
    if reached < plan.train_to and number == plan.rounds:
        raise not_reached(f"{number} rounds", plan.train_to, reached)
    return reached >= plan.train_to


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
