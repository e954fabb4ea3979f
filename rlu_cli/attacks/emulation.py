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
from rlu_cli.numerics.posterior import posterior_mean
from rlu_cli.types import Ensemble, Evidence, Recovery

_STRANGE = 10.0  # misfit from which on the client is like no virtual one
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
    ensemble = evidence.ensemble
    assert ensemble is not None, "a method that needs an ensemble says so"
    found = _found(ensemble)
    errors = torch.stack(left_out(ensemble)) - ensemble.shares[nearest(ensemble)]
    covariance = _covariance(found, errors)
    answer = shared(
        evidence,
        _to_expect(found),
        found.status,
        notes=(_UNLIKE,) if found.misfit > _STRANGE else (),
        misfit={"virtual clients": found.misfit},
        virtual_clients=len(ensemble.shares),
        expected_iacc=1 - float(errors.abs().sum(1).mean()) / 2,
    )
    return replace(answer, unbounded=found.unbounded, covariance=covariance)


def _covariance(found: Emulated, errors: Tensor) -> Tensor:
    """That of the left-out clients' errors, larger by the client's own misfit, for its images are
    others than theirs; what was counted from the rows weighs as much as one of them a class.

    errors  (R', N)
    """
    seen, classes = errors.shape
    measured = errors.T @ errors * max(1.0, found.misfit)
    return (measured + classes * found.covariance) / (seen + classes)


def _found(ensemble: Ensemble) -> Emulated:
    return emulate(ensemble.shares, ensemble.rows, ensemble.observed, ensemble.closeness)


def _to_expect(found: Emulated) -> Tensor:
    """The shares to report: the mean of all that the error allows."""
    mean = posterior_mean(found.unbounded, found.covariance)
    return found.shares if mean is None else mean


def left_out(ensemble: Ensemble) -> list[Tensor]:
    """The shares (N,) of each virtual client that counts most, as found from all the others."""
    found = []
    for index in torch.nonzero(nearest(ensemble))[:, 0].tolist():
        others = torch.arange(len(ensemble.shares)) != index
        rest = (ensemble.shares[others], ensemble.rows[others])
        left = Ensemble(*rest, ensemble.rows[index], ensemble.closeness[others])
        found.append(_to_expect(_found(left)))
    return found


def nearest(ensemble: Ensemble) -> Tensor:
    """(R,) bool: the virtual clients that count most."""
    return ensemble.closeness >= ensemble.closeness.max()


METHOD = Method(
    title="emulation",
    paper="rlu, docs/method.md",
    build=lambda options: emulation,
    auxiliary=True,
    any_optimiser=True,
    needs=frozenset({ENSEMBLE}),
)
