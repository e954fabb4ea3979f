"""Rounds of federated averaging over simulated clients, resumable from what is on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlu_cli.errors import InputError, printable
from rlu_cli.normalisation import Normalisation
from rlu_cli.simulator.client import (
    LocalRound,
    State,
    copy_state,
    seeded,
    to_pixels,
    train_client,
)
from rlu_cli.simulator.export import RunFolder
from rlu_cli.simulator.partition import Partition
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Federation:
    """Everything a round needs besides the weights."""

    plan: Plan
    holding: Holding
    partition: Partition
    normalise: Normalisation
    device: torch.device


@dataclass(frozen=True)
class Round:
    """One round that is complete on disk.

    accuracy  of the global model the round started from, on the test images
    reused    how many clients were on disk already
    """

    number: int
    accuracy: float
    reused: int


def federate(
    federation: Federation,
    factory: Callable[[], nn.Module],
    run: RunFolder,
    *,
    tick: Callable[[int], None] = lambda steps: None,
) -> Iterator[Round]:
    """Train round after round, writing every model and every truth as soon as it is known.

    factory  makes the model with its starting weights; what it draws comes from the run's seed
    run      what is complete there is not computed again
    tick     called with the number of steps done
    """
    plan = federation.plan
    with seeded((plan.seed, 3), federation.device):
        model = factory()
    _check_fit(model, federation)
    if run.read_global(0) is None:
        run.write_global(0, copy_state(model))
    model.to(federation.device)
    for number in range(plan.rounds):
        yield _one_round(federation, model, run, number, tick)
    if plan.only is None:
        yield _last_accuracy(federation, model, run)


def _one_round(
    federation: Federation,
    model: nn.Module,
    run: RunFolder,
    number: int,
    tick: Callable[[int], None],
) -> Round:
    plan = federation.plan
    start = run.require_global(number)
    reused = 0
    for client in plan.trained:
        if run.read_client(number, client) is not None:
            reused += 1
            tick(plan.epochs)
            continue
        model.load_state_dict(start)
        run.write_client(number, client, _train(federation, model, number, client, tick))
    accuracy = _global_accuracy(federation, model, run, number)
    if plan.only is None and run.read_global(number + 1) is None:
        states = (run.require_client(number, client) for client in plan.trained)
        samples = [plan.epochs * plan.batch_size] * plan.clients
        run.write_global(number + 1, average(states, samples))
    run.write_round(number, accuracy)
    return Round(number, accuracy, reused)


def _train(
    federation: Federation,
    model: nn.Module,
    number: int,
    client: int,
    tick: Callable[[int], None],
) -> LocalRound:
    plan, holding = federation.plan, federation.holding
    own = federation.partition.owned[client]
    try:
        return train_client(
            model,
            holding.client_images[own],
            holding.client_labels[own],
            classes=len(holding.class_names),
            steps=plan.epochs,
            batch_size=plan.batch_size,
            lr=plan.lr,
            normalise=federation.normalise,
            seed=(plan.seed, 4, number, client),
            tick=tick,
        )
    except InputError as error:
        where = f"round {number}, client {client}: {error.message}"
        raise InputError(error.code, where, hint=error.hint) from error


def _last_accuracy(federation: Federation, model: nn.Module, run: RunFolder) -> Round:
    number = federation.plan.rounds
    return Round(number, _global_accuracy(federation, model, run, number), 0)


def _global_accuracy(
    federation: Federation, model: nn.Module, run: RunFolder, number: int
) -> float:
    recorded = run.recorded_accuracy(number)
    if recorded is not None:
        return recorded
    holding = federation.holding
    model.load_state_dict(run.require_global(number))
    return accuracy_on(
        *(model, holding.test_images, holding.test_labels), federation.normalise, federation.device
    )


def accuracy_on(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalise: Normalisation,
    device: torch.device,
) -> float:
    """Share of images a model in evaluation mode classifies right."""
    model.eval()
    right = 0
    with torch.no_grad():
        for start in range(0, len(labels), EVALUATION_BATCH):
            batch = slice(start, start + EVALUATION_BATCH)
            predicted = (
                model(normalise(to_pixels(images[batch], device))).argmax(dim=1).cpu().numpy()
            )
            right += int((predicted == labels[batch]).sum())
    return right / len(labels)


def average(states: Iterable[State], samples: Sequence[int]) -> State:
    """θ_g = Σ_k n_k θ_k / Σ_k n_k over all state, buffers too; counters as the rounded mean.

    states   one mapping of tensors for each client, all alike; read one at a time
    samples  n_k, how many samples each client trained on
    """
    total = float(sum(samples))
    summed: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for state, count in zip(states, samples, strict=True):
        for name, value in state.items():
            part = value.to(torch.float64) * (count / total)
            summed[name] = summed[name] + part if name in summed else part
            types[name] = value.dtype
    return {
        name: (value if types[name].is_floating_point else value.round()).to(types[name])
        for name, value in summed.items()
    }


def _check_fit(model: nn.Module, federation: Federation) -> None:
    """One pass over two images, so that a model for other images or classes fails at once."""
    holding = federation.holding
    pixels = to_pixels(holding.test_images[:2], torch.device("cpu"))
    wanted = (len(pixels), len(holding.class_names))
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(federation.normalise(pixels)).shape)
        why = "" if shape == wanted else f"it returns {shape}, not (images, classes) = {wanted}"
    except Exception as error:  # whatever the user's own code raises
        why = printable(error)
    if why:
        size = pixels.shape[-1]
        raise InputError(
            "E215",
            f"the model cannot classify {size}x{size} RGB images into {wanted[1]} classes",
            why=why,
            hint="give its arguments with --model-arg, or resize with --image-size",
        )
