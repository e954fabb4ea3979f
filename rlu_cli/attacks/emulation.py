"""Virtual clients as the yardstick: which labels make one hand in what the client handed in.

Not in the paper. Serves any optimiser and schedule: nothing is assumed of the steps but that a
virtual client can take them too.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import Method
from rlu_cli.attacks.observations import VIRTUAL_POPULATION
from rlu_cli.numerics.emulator import EmulatorFit, emulate
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.types import Evidence, Recovery, VirtualPopulation

_DOES_NOT_FIT = 10.0  # misfit from which on the client is like no virtual one
_UNLIKE = (
    "the client's update is unlike that of any virtual client: it may have trained otherwise, or "
    "on images of another kind"
)


def emulation(evidence: Evidence) -> Recovery:
    """Shares z of y = a + B z + noise, with a, B and the noise from virtual clients of known z.

    y: the update of the output layer's bias and of its weights' row sums, and mean and variance of
    the inputs of the last two BatchNorm layers whose buffers moved. `numerics.emulator` solves it;
    what is reported is the mean over all shares that its error allows.

    There are fewer virtual clients than rows, so that the covariance counted from them is too
    small: the error is that of virtual clients near the client, each found from all the others.
    """
    population = evidence[VIRTUAL_POPULATION]
    found = _found(population)
    errors = torch.stack(left_out(population)) - population.shares[nearest(population)]
    covariance = _covariance(found, errors)
    answer = shared(
        evidence,
        _shares_to_report(found),
        found.status,
        notes=(_UNLIKE,) if found.reduced_chi_square > _DOES_NOT_FIT else (),
        reduced_chi_square={"virtual clients": found.reduced_chi_square},
        misfit={"virtual clients": found.reduced_chi_square},  # its name up to schema 1.2
        virtual_clients=len(population.shares),
        expected_iacc=1 - float(errors.abs().sum(1).mean()) / 2,
    )
    return replace(answer, unconstrained=found.unconstrained, covariance=covariance)


def _covariance(found: EmulatorFit, errors: Tensor) -> Tensor:
    """That of the left-out clients' errors, larger by the client's own misfit, for its images are
    others than theirs; what was counted from the rows weighs as much as one of them a class.

    errors  (R', N)
    """
    seen, classes = errors.shape
    measured = errors.T @ errors * max(1.0, found.reduced_chi_square)
    return (measured + classes * found.covariance) / (seen + classes)


def _found(population: VirtualPopulation) -> EmulatorFit:
    return emulate(population.shares, population.rows, population.observed, population.closeness)


def _shares_to_report(found: EmulatorFit) -> Tensor:
    """The shares to report: the mean of all that the error allows."""
    mean = posterior_mean(found.unconstrained, found.covariance)
    return found.shares if mean is None else mean


def left_out(population: VirtualPopulation) -> list[Tensor]:
    """The shares (N,) of each virtual client that counts most, as found from all the others."""
    found = []
    for index in torch.nonzero(nearest(population))[:, 0].tolist():
        others = torch.arange(len(population.shares)) != index
        rest = (population.shares[others], population.rows[others])
        left = VirtualPopulation(*rest, population.rows[index], population.closeness[others])
        found.append(_shares_to_report(_found(left)))
    return found


def nearest(population: VirtualPopulation) -> Tensor:
    """(R,) bool: the virtual clients that count most."""
    return population.closeness >= population.closeness.max()


METHOD = Method(
    title="emulation",
    paper="rlu, docs/method.md",
    attack=emulation,
    auxiliary=True,
    any_optimiser=True,
    needs=frozenset({VIRTUAL_POPULATION}),
    built_of_virtual_clients=True,
)
