"""Which method a user gets who names none: the most accurate one for the model at hand."""

from __future__ import annotations

from dataclasses import dataclass

from rlu_cli.attacks.method import learned_something
from rlu_cli.types import Evidence

AUTO = "auto"
FOR_NONLINEAR = "emulation"  # for clients whose update is not linear in their gradients


@dataclass(frozen=True)
class Choice:
    """A method, and why it was taken, in words."""

    method: str
    reason: str


def method_for(evidence: Evidence, *, buffers: bool, noise: bool) -> Choice:
    """The method for this case, by what was measured (docs/method.md); the first rule that holds.

    buffers  whether BatchNorm counters show the client's batches
    noise    whether noise images stand in for auxiliary ones
    """
    rules = (
        (noise, "rlu", "there are no labelled images for the other witnesses"),
        (
            not evidence.linear and evidence.lr_known,
            FOR_NONLINEAR,
            "the client's steps are not linear in its gradients, but virtual clients can take them",
        ),
        (buffers, "fusion", "BatchNorm buffers tell the client's batches"),
        (
            learned_something(evidence),
            "fusion",
            "the model is trained, and the weights tell how large the client's errors are",
        ),
        (True, "rlu", "the model is untrained and has no BatchNorm buffers"),
    )
    return next(Choice(method, reason) for holds, method, reason in rules if holds)
