"""Virtual clients as the yardstick: which labels make one hand in what the client handed in.

Not in the paper. Serves any optimiser and schedule: nothing is assumed of the steps but that a
virtual client can take them too.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import ENSEMBLE, Method
from rlu_cli.numerics.emulator import Emulated, emulate
from rlu_cli.types import Ensemble, Evidence, Recovery

_STRANGE = 10.0  # misfit from which on the client is like no virtual one
_UNLIKE = (
    "the client's update is unlike that of any virtual client: it may have trained otherwise, or "
    "on images of another kind"
)


def emulation(evidence: Evidence) -> Recovery:
    """Shares z of y = a + B z + noise, with a, B and the noise from virtual clients of known z.

    y: the update of the output layer's bias and of its weights' row sums, and the mean input of
    the last BatchNorm layer whose buffers moved. `numerics.emulator` solves it.
    """
    ensemble = evidence.ensemble
    assert ensemble is not None, "a method that needs an ensemble says so"
    found = _found(ensemble)
    answer = shared(
        evidence,
        found.shares,
        found.status,
        notes=(_UNLIKE,) if found.misfit > _STRANGE else (),
        misfit={"virtual clients": found.misfit},
        virtual_clients=len(ensemble.shares),
        expected_iacc=_expected(ensemble),
    )
    return replace(answer, covariance=found.covariance)


def _found(ensemble: Ensemble) -> Emulated:
    return emulate(ensemble.shares, ensemble.rows, ensemble.observed, ensemble.closeness)


def left_out(ensemble: Ensemble) -> list[Tensor]:
    """Shares (N,) of each virtual client that counts most, as found from all the others."""
    near = ensemble.closeness >= ensemble.closeness.max()
    found = []
    for index in torch.nonzero(near)[:, 0].tolist():
        others = torch.arange(len(near)) != index
        rest = (ensemble.shares[others], ensemble.rows[others])
        one = Ensemble(*rest, ensemble.rows[index], ensemble.closeness[others])
        found.append(_found(one).shares)
    return found


def _expected(ensemble: Ensemble) -> float:
    """Mean overlap of the shares of virtual clients with those found from all the others."""
    near = ensemble.closeness >= ensemble.closeness.max()
    errors = torch.stack(left_out(ensemble)) - ensemble.shares[near]
    return 1 - float(errors.abs().sum(1).mean()) / 2


METHOD = Method(
    title="emulation",
    paper="rlu, docs/method.md",
    build=lambda options: emulation,
    auxiliary=True,
    any_optimiser=True,
    needs=frozenset({ENSEMBLE}),
)
