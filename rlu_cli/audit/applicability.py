"""Which methods can be used on a case, and why others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlu_cli.attacks import ATTACKS
from rlu_cli.attacks.observations import CLASS_UPDATES, INTERPOLATION, VIRTUAL_POPULATION
from rlu_cli.audit.diagnostics import is_plainly_trained
from rlu_cli.case.auxiliary import is_noise
from rlu_cli.case.build import Case
from rlu_cli.errors import InputError, UsageError
from rlu_cli.local_training.description import refuse_nonlinear
from rlu_cli.types import Evidence, Observation


def _no_interpolation(case: Case) -> str | None:
    nonlinear = case.training.nonlinear
    if nonlinear and not case.pair.steps:
        return f"it needs BatchNorm buffers that moved: {nonlinear}"
    return None


def _no_virtual_clients(case: Case) -> str | None:
    if is_noise(case.auxiliary):
        return "it trains virtual clients, which needs labelled images"
    return None


def _no_population(case: Case) -> str | None:
    if case.remembers:
        return "it trains virtual clients, which have no state from earlier rounds as this one has"
    return _no_virtual_clients(case)


# Why an observation cannot be computed for a case; None if it can.
UNAVAILABLE: Mapping[Observation[Any], Callable[[Case], str | None]] = {
    INTERPOLATION: _no_interpolation,
    VIRTUAL_POPULATION: _no_population,
    CLASS_UPDATES: _no_virtual_clients,
}


def refusal(name: str, case: Case) -> str | None:
    """Why a method cannot be used on a case; None if it can."""
    method = ATTACKS[name]
    if case.training.nonlinear and not method.any_optimiser:
        return case.training.nonlinear
    if not case.training.lr_known and method.needs_lr:
        return "it needs the learning rate (--lr)"
    reasons = (check(case) for need, check in UNAVAILABLE.items() if need in method.needs)
    return next((reason for reason in reasons if reason is not None), None)


def require_any(case: Case, methods: tuple[str, ...]) -> None:
    """Raise UsageError E108 or E109 if none of the methods can be used."""
    reasons = [refusal(name, case) for name in methods]
    if None in reasons:
        return
    if case.training.nonlinear in reasons:
        refuse_nonlinear(case.training)
    raise UsageError(
        "E109",
        f"none of the requested methods can be used: {', '.join(methods)}",
        why="; ".join(dict.fromkeys(reason for reason in reasons if reason)),
        hint="give labelled images with --aux DIR, or another --method (`rlu methods`)",
    )


def refuse_noise_on_trained(case: Case, evidence: Evidence, diagnostics: Mapping[str, Any]) -> None:
    """Raise InputError E225 if the auxiliary images are noise and the model is trained.

    diagnostics  of the update, as `update_diagnostics` returns them
    """
    if is_noise(case.auxiliary) and is_plainly_trained(evidence.before, diagnostics):
        raise InputError(
            "E225",
            "noise cannot replace auxiliary images: the global model is trained",
            why="the outputs of a trained model depend on the class of the image",
            hint="give labelled images with --aux DIR; five per class are enough to start",
        )
