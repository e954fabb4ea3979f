"""Method `auto`: the most accurate method for the case at hand."""

from __future__ import annotations

from dataclasses import dataclass

from rlu_cli.types import Evidence

AUTO = "auto"
FOR_NONLINEAR = "emulation"  # for clients whose update is not linear in their gradients


@dataclass(frozen=True)
class Choice:
    """The selected method and the reason, as shown to the user."""

    method: str
    reason: str


def method_for(evidence: Evidence, *, noise: bool) -> Choice:
    """Select the method for a case by the first rule that holds (docs/method.md).

    noise  whether noise images replace auxiliary ones
    """
    rules = (
        (noise, "rlu", "no labelled images were given, which the others need"),
        (
            not evidence.linear and evidence.lr_known,
            FOR_NONLINEAR,
            "the client's update is not linear in its gradients, but virtual clients can train the "
            "same way",
        ),
        (
            not evidence.lr_known,
            "fusion",
            "the learning rate is not known, and the BatchNorm buffers show the labels without it",
        ),
        (True, "pooled", "it weighs bayes, rlu and path"),
    )
    return next(Choice(method, reason) for holds, method, reason in rules if holds)
