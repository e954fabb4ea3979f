"""How a client trained, from settings: its optimiser, and whether that is linear in gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlu_cli.errors import UsageError
from rlu_cli.local_training.step_plan import StepPlan, plan_steps
from rlu_cli.schemes import SCHEMES, Recursion, Scheme, SchemeRule, learning_rates
from rlu_cli.schemes.descent import ADAPTIVE, BETAS
from rlu_cli.settings.parsers import INFER

NONLINEAR: Mapping[str, str] = {
    "adam": "Adam divides each gradient by its own running size, which the files do not hold",
    "adamw": "AdamW divides each gradient by its own running size, which the files do not hold",
    "clip": "clipping by norm scales each step by a factor that the files do not hold",
}


@dataclass(frozen=True)
class LocalTraining:
    """One client's local training.

    scheme     of the federation
    rule       the same with its λ
    recursion  what it makes of gradients; of a client that is not linear, what plain SGD would
    smoothing  ε of label smoothing
    plan       steps and batch sizes
    optimizer  "sgd", "adam" or "adamw"
    betas      of Adam and AdamW
    clip       largest norm of a step's mean gradient; None for no clipping
    rated      whether the learning rate is known; else `recursion` has steps of 1
    """

    scheme: Scheme
    rule: SchemeRule
    recursion: Recursion
    smoothing: float
    plan: StepPlan
    optimizer: str = "sgd"
    betas: tuple[float, float] = BETAS
    clip: float | None = None
    lr_known: bool = True

    @property
    def nonlinear(self) -> str | None:
        """Why the client is not linear in its gradients, in words; None for one that is."""
        return "; ".join(NONLINEAR[name] for name in _departures(self)) or None


def describe_local_training(value: Callable[[str], Any]) -> LocalTraining:
    """The training that the settings describe; `value` gives a setting or None.

    Raises UsageError E106 for settings that contradict each other.
    """
    _refuse_contradictions(value)
    plan = plan_steps(
        value("epochs"),
        value("batch_size"),
        value("samples"),
        value("steps_per_epoch"),
        drop_last=bool(value("drop_last")),
    )
    scheme = SCHEMES[value("scheme")]
    rule = scheme.build(value("lambda") or 0.0)
    recursion = Recursion(
        lr=_rates(value, plan.steps),
        momentum=value("momentum") or 0.0,
        nesterov=bool(value("nesterov")),
        decay=value("weight_decay") or 0.0,
        pull=rule.pull,
    )
    return LocalTraining(
        scheme=scheme,
        rule=rule,
        recursion=recursion,
        smoothing=value("label_smoothing") or 0.0,
        plan=plan,
        optimizer=value("optimizer"),
        betas=value("betas") or BETAS,
        clip=value("clip") or None,
        lr_known=_told_rate(value) is not None,
    )


def refuse_nonlinear(training: LocalTraining) -> None:
    """Raises UsageError E108 for a client that is not linear in its gradients."""
    if training.nonlinear is None:
        return
    raise UsageError(
        "E108",
        "no method asked for can attack this client: " + ", ".join(_departures(training)),
        why=training.nonlinear,
        hint="virtual clients serve any optimiser: --method ramakrishna-dan-virtual; "
        "to see what a server finds that takes this client for one of SGD steps: --clip 0, "
        "--optimizer sgd",
    )


def _departures(training: LocalTraining) -> list[str]:
    """What of it is not linear, under the names of the settings."""
    names = (training.optimizer, "clip" if training.clip is not None else "")
    return [name for name in names if name in NONLINEAR]


def _told_rate(value: Callable[[str], Any]) -> float | None:
    """The learning rate; None where nobody knows it and the files are to tell it."""
    rate = value("lr")
    return None if rate in (None, INFER) else float(rate)


def _rates(value: Callable[[str], Any], steps: int) -> tuple[float, ...]:
    schedule = value("lr_schedule")
    try:
        return learning_rates(_told_rate(value) or 1.0, steps, schedule)
    except ValueError as expected:
        raise UsageError(
            "E101", f"lr_schedule = {schedule} cannot be", hint=f"expected {expected}"
        ) from None


def _refuse_contradictions(value: Callable[[str], Any]) -> None:
    scheme, adaptive = value("scheme"), value("optimizer") in ADAPTIVE
    wrong = {
        f"--lambda means nothing to {scheme} (--lambda 0 leaves it out)": (
            value("lambda") and not SCHEMES[scheme].takes_lambda
        ),
        "--nesterov needs --momentum": value("nesterov") and value("momentum") is None,
        f"--momentum means nothing to {value('optimizer')} (--momentum 0 leaves it out)": (
            value("momentum") and adaptive
        ),
        "--betas needs --optimizer adam or adamw": value("betas") and not adaptive,
        "--drop-last needs --samples": value("drop_last") and value("samples") is None,
    }
    found = [sentence for sentence, holds in wrong.items() if holds]
    if found:
        raise UsageError(
            "E106",
            "; ".join(found),
            hint="--show-settings shows where each value came from",
        )
