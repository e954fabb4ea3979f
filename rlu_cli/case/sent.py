"""What the client sent, read as the weights it had at the end of the round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rlu_cli.checkpoints import (
    GRADIENT_RATE,
    CheckpointPair,
    align,
    as_weights,
    complete,
    find_output_layer,
    recognise_kind,
)
from rlu_cli.errors import InputError, UsageError
from rlu_cli.local_training.description import describe_local_training
from rlu_cli.schemes import step_weights
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Setting

_SENTENCES = {
    "delta": "the client sent a delta: client minus global",
    "minus-delta": "the client sent a delta: global minus client",
    "gradient": "the client sent a gradient, read as one step",
}


def read_sent(
    pair: CheckpointPair, settings: Mapping[str, Setting]
) -> tuple[CheckpointPair, dict[str, Setting]]:
    """The pair as weights under common names, and the settings that this decides.

    settings  as gathered so far; `update_kind` says what was sent, "auto" lets the numbers say it

    A gradient is that of one step, unless epochs are given; its learning rate does not matter.
    Raises InputError E214 for a client's file without the output layer.
    """
    pair = align(pair)
    kind, rate = settings["update_kind"], _rate(settings)
    if kind.value == "auto":
        value, why = recognise_kind(pair, rate)
        kind = Setting(value, f"told from the numbers: {why}")
    decided = {"update_kind": kind}
    if kind.value == "gradient":
        decided |= _of_a_gradient(settings)
    pair = as_weights(pair, kind.value, _rate({**settings, **decided}) or GRADIENT_RATE)
    pair = complete(pair, _layer(pair, settings))
    if kind.value not in _SENTENCES:
        return pair, decided
    notes = (f"{_SENTENCES[kind.value]} ({kind.source})", *pair.notes)
    return CheckpointPair(pair.before, pair.after, pair.layer, notes), decided


def _of_a_gradient(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """One step, and any learning rate, where none is given."""
    found = {}
    if "epochs" not in settings:
        found["epochs"] = Setting(1, "a gradient is that of one step")
    if "lr" not in settings or settings["lr"].value == INFER:
        found["lr"] = Setting(GRADIENT_RATE, "any: a gradient was sent")
    return found


def _rate(settings: Mapping[str, Setting]) -> float | None:
    """η Σ_τ ρ^τ, by which the mean gradient of a step moves the client; None if it is not known."""
    if "lr" not in settings or "epochs" not in settings or settings["lr"].value == INFER:
        return None
    value: Callable[[str], Any] = {n: setting.value for n, setting in settings.items()}.get
    try:
        recursion = describe_local_training(value).recursion
    except UsageError:  # raised again where the settings are checked
        return None
    return recursion.lr[0] * float(step_weights(recursion)[-1].sum())


def _layer(pair: CheckpointPair, settings: Mapping[str, Setting]) -> str | None:
    """The output layer of the global model; None where it is not clear yet."""
    given = settings["layer"].value if "layer" in settings else None
    try:
        return find_output_layer(pair.before.state, layer=given)
    except InputError:
        return None
