"""How a client trained, from settings: its linear recursion, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlu_cli.errors import UsageError
from rlu_cli.schemes import SCHEMES, TAKES_LAMBDA, Recursion, Scheme, learning_rates
from rlu_cli.steps import Plan, plan_steps

LINEAR_OPTIMISER = "sgd"


@dataclass(frozen=True)
class Training:
    """One client's local training.

    scheme     of the federation
    recursion  what it makes of gradients
    smoothing  ε of label smoothing
    plan       steps and batch sizes
    """

    scheme: Scheme
    recursion: Recursion
    smoothing: float
    plan: Plan


def describe_training(value: Callable[[str], Any]) -> Training:
    """The training that the settings describe; `value` gives a setting or None.

    Raises UsageError E106 for settings that contradict each other, E108 for a client that is not
    linear in its gradients.
    """
    _refuse_contradictions(value)
    _refuse_nonlinear(value)
    plan = plan_steps(
        value("epochs"),
        value("batch_size"),
        value("samples"),
        value("steps_per_epoch"),
        drop_last=bool(value("drop_last")),
    )
    scheme = SCHEMES[value("scheme")](value("lambda") or 0.0)
    recursion = Recursion(
        lr=_rates(value, plan.steps),
        momentum=value("momentum") or 0.0,
        nesterov=bool(value("nesterov")),
        decay=value("weight_decay") or 0.0,
        pull=scheme.pull,
    )
    return Training(scheme, recursion, value("label_smoothing") or 0.0, plan)


def _rates(value: Callable[[str], Any], steps: int) -> tuple[float, ...]:
    schedule = value("lr_schedule")
    try:
        return learning_rates(value("lr"), steps, schedule)
    except ValueError as expected:
        raise UsageError(
            "E101", f"lr_schedule = {schedule} cannot be", hint=f"expected {expected}"
        ) from None


def _refuse_contradictions(value: Callable[[str], Any]) -> None:
    scheme = value("scheme")
    wrong = {
        f"--lambda means nothing to {scheme} (--lambda 0 leaves it out)": (
            value("lambda") and scheme not in TAKES_LAMBDA
        ),
        "--nesterov needs --momentum": value("nesterov") and value("momentum") is None,
        "--betas needs --optimizer adam or adamw": (
            value("betas") and value("optimizer") == LINEAR_OPTIMISER
        ),
        "--drop-last needs --samples": value("drop_last") and value("samples") is None,
    }
    found = [sentence for sentence, holds in wrong.items() if holds]
    if found:
        raise UsageError(
            "E106",
            "; ".join(found),
            hint="--show-settings shows where each value came from",
        )


_NONLINEAR: Mapping[str, str] = {
    "adam": "Adam divides each gradient by its own running size, which the files do not hold",
    "adamw": "AdamW divides each gradient by its own running size, which the files do not hold",
    "clip": "clipping by norm scales each step by a factor that the files do not hold",
}


def _refuse_nonlinear(value: Callable[[str], Any]) -> None:
    found = [n for n in (value("optimizer"), "clip" if value("clip") else None) if n in _NONLINEAR]
    if found:
        raise UsageError(
            "E108",
            "no method here can attack this client yet: " + ", ".join(map(str, found)),
            why="; ".join(_NONLINEAR[str(name)] for name in found),
            hint="clients that take SGD steps can be attacked, under any scheme of `rlu schemes`; "
            "to see what a server finds that takes this one for such a client: --clip 0, "
            "--optimizer sgd",
        )
