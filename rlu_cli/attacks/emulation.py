"""Emulation: label shares by regression on the updates of virtual clients with known labels.

Not in the paper. Works for any optimiser and schedule that the virtual clients can use too.
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

_DOES_NOT_FIT = 10.0  # reduced chi-square above which the client resembles no virtual client
_UNLIKE = (
    "the client's update is unlike that of any virtual client: its training settings or its kind "
    "of images may differ"
)


def emulation(evidence: Evidence) -> Recovery:
    """Shares z of y = a + B z + noise, with a, B and the noise fitted to virtual clients.

    y is the update of the output layer's bias, the row sums of its weight update, mean and variance
    of the inputs of the last two BatchNorm layers whose buffers changed, and the mean logits and
    softmax of the client's model on some images.
    `numerics.emulator` solves for z; the posterior mean of the shares is reported.

    The estimated covariance is too small, because there are fewer virtual clients than rows. The
    reported one is that of the leave-one-out errors of the virtual clients nearest to the client.
    """
    population = evidence[VIRTUAL_POPULATION]
    fit = _fit(population)
    errors = torch.stack(left_out(population)) - population.shares[nearest(population)]
    covariance = _covariance(fit, errors)
    answer = shared(
        evidence,
        _shares_to_report(fit),
        fit.status,
        notes=(_UNLIKE,) if fit.reduced_chi_square > _DOES_NOT_FIT else (),
        reduced_chi_square={"virtual clients": fit.reduced_chi_square},
        misfit={"virtual clients": fit.reduced_chi_square},  # key up to schema 1.2
        virtual_clients=len(population.shares),
        expected_iacc=1 - float(errors.abs().sum(1).mean()) / 2,
    )
    return replace(answer, unconstrained=fit.unconstrained, covariance=covariance)


def _covariance(fit: EmulatorFit, errors: Tensor) -> Tensor:
    """Covariance (N, N) of the estimate: leave-one-out errors, combined with the fit's covariance.

    errors  (R', N) leave-one-out errors of the nearest virtual clients. Their covariance is
            multiplied by the client's reduced chi-square if that is above 1, since the client's
            images differ from theirs. The fit's covariance weighs as much as N of these errors
    """
    count, classes = errors.shape
    measured = errors.T @ errors * max(1.0, fit.reduced_chi_square)
    return (measured + classes * fit.covariance) / (count + classes)


def _fit(population: VirtualPopulation) -> EmulatorFit:
    return emulate(population.shares, population.rows, population.observed, population.closeness)


def _shares_to_report(fit: EmulatorFit) -> Tensor:
    """Posterior mean of the shares (N,); the least-squares shares if it cannot be computed."""
    mean = posterior_mean(fit.unconstrained, fit.covariance)
    return fit.shares if mean is None else mean


def left_out(population: VirtualPopulation) -> list[Tensor]:
    """Leave-one-out estimate of the shares (N,) of each of the `nearest` virtual clients."""
    estimates = []
    for index in torch.nonzero(nearest(population))[:, 0].tolist():
        others = torch.arange(len(population.shares)) != index
        rest = (population.shares[others], population.rows[others])
        population_without = VirtualPopulation(
            *rest, population.rows[index], population.closeness[others]
        )
        estimates.append(_shares_to_report(_fit(population_without)))
    return estimates


def nearest(population: VirtualPopulation) -> Tensor:
    """(R,) bool: virtual clients of the largest weight, drawn near the client."""
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
