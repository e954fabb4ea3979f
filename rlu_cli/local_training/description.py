"""A client's local training, built from settings, and whether it is linear in the gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlu_cli.errors import UsageError
from rlu_cli.local_training.step_plan import StepPlan, plan_steps
from rlu_cli.schemes import SCHEMES, Recursion, Scheme, SchemeRule, learning_rates
from rlu_cli.schemes.descent import ADAPTIVE, BETAS
from rlu_cli.settings.parsers import INFER

if TYPE_CHECKING:
    from torch import Tensor

NONLINEAR: Mapping[str, str] = {
    "adam": "Adam scales each gradient by running moments that the files do not contain",
    "adamw": "AdamW scales each gradient by running moments that the files do not contain",
    "clip": "clipping by norm scales each step by a factor that the files do not contain",
}


@dataclass(frozen=True)
class LocalTraining:
    """One client's local training.

    scheme     federated-learning scheme
    rule       the scheme with its λ
    recursion  linear map from gradients to positions; for a nonlinear client, that of SGD with the
               same settings
    smoothing  ε of label smoothing
    plan       number of steps and batch sizes
    optimizer  "sgd", "adam" or "adamw"
    betas      of Adam and AdamW
    clip       largest norm of a step's mean gradient; None for no clipping
    lr_known   whether the learning rate is known; if not, `recursion` uses a base rate of 1
    class_weights  (N,) weight of each class in the loss; None for equal weights
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
    class_weights: tuple[float, ...] | None = None

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch: logits (B, N), targets (B,)."""
        from rlu_cli.local_training.loss import batch_loss

        return batch_loss(
            logits, targets, smoothing=self.smoothing, class_weights=self.class_weights
        )

    @property
    def nonlinear(self) -> str | None:
        """Why the update is not linear in the gradients, as a sentence; None if it is linear."""
        return "; ".join(NONLINEAR[name] for name in _departures(self)) or None


def describe_local_training(value: Callable[[str], Any]) -> LocalTraining:
    """Build the local training from settings.

    value  maps the name of a setting to its value, None if it is missing

    Raises UsageError E101 for an invalid learning-rate schedule or too many steps, E102 for
    `samples` without `batch_size`, E106 for contradictory settings.
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
        lr_known=_given_rate(value) is not None,
        class_weights=value("class_weights"),
    )


def refuse_nonlinear(training: LocalTraining) -> None:
    """Raise UsageError E108 if the client's update is not linear in its gradients."""
    if training.nonlinear is None:
        return
    raise UsageError(
        "E108",
        "none of the requested methods supports this client: " + ", ".join(_departures(training)),
        why=training.nonlinear,
        hint="use --method ramakrishna-dan-virtual, which supports any optimiser; to assume plain "
        "SGD anyway, give --clip 0 --optimizer sgd",
    )


def _departures(training: LocalTraining) -> list[str]:
    """What makes the update nonlinear in the gradients: keys of `NONLINEAR`."""
    names = (training.optimizer, "clip" if training.clip is not None else "")
    return [name for name in names if name in NONLINEAR]


def _given_rate(value: Callable[[str], Any]) -> float | None:
    """The learning rate; None if it is missing or to be inferred from the files."""
    rate = value("lr")
    return None if rate in (None, INFER) else float(rate)


def _rates(value: Callable[[str], Any], steps: int) -> tuple[float, ...]:
    schedule = value("lr_schedule")
    try:
        return learning_rates(_given_rate(value) or 1.0, steps, schedule)
    except ValueError as expected:
        raise UsageError(
            "E101", f"invalid lr_schedule: {schedule}", hint=f"expected {expected}"
        ) from None


def _refuse_contradictions(value: Callable[[str], Any]) -> None:
    scheme, adaptive = value("scheme"), value("optimizer") in ADAPTIVE
    wrong = {
        f"--lambda has no effect with {scheme} (--lambda 0 removes it)": (
            value("lambda") and not SCHEMES[scheme].takes_lambda
        ),
        "--nesterov needs --momentum": value("nesterov") and value("momentum") is None,
        f"--momentum has no effect with {value('optimizer')} (--momentum 0 removes it)": (
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
