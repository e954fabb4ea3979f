"""The number of steps between two checkpoints, from BatchNorm counters."""

from __future__ import annotations

from collections.abc import Mapping

from rlu_cli.checkpoints import CheckpointPair, counter_changes
from rlu_cli.types import Setting

INFERRED = "inferred from BatchNorm counters"  # the sources of inferred epochs begin with this


def inferred_epochs(settings: Mapping[str, Setting], pair: CheckpointPair) -> Setting | None:
    """The epochs, inferred as the counted steps divided by the steps per epoch.

    None if they are given, or if the counters do not show a whole number of epochs.
    """
    steps, each = pair.steps, _steps_of_an_epoch(settings)
    if "epochs" in settings or not steps or each is None or steps % each:
        return None
    passes = counter_changes(*pair)
    spread = f"{min(passes):g} to {max(passes):g} over {len(passes)} layers, most count {steps}"
    agreed = f"all {len(passes)} layers count {steps}" if len(passes) > 1 else f"it counts {steps}"
    return Setting(steps // each, f"{INFERRED}, {agreed if len(set(passes)) == 1 else spread}")


def step_hints(settings: Mapping[str, Setting], pair: CheckpointPair) -> list[str]:
    """What the counters show if epochs are missing and cannot be inferred; for the E102 error."""
    passes, steps = counter_changes(*pair), pair.steps
    if "epochs" in settings or inferred_epochs(settings, pair) is not None or not passes:
        return []
    if steps is None:
        spread = f"{min(passes):g} to {max(passes):g} over {len(passes)} layers"
        return [f"BatchNorm counters do not agree on a whole number of steps: {spread}"]
    if not steps:
        return ["BatchNorm counters did not move"]
    each = _steps_of_an_epoch(settings)
    whole = "" if each is None else f", not a whole number of epochs of {each}"
    return [f"BatchNorm counters show {steps} steps in all{whole}"]


def _steps_of_an_epoch(settings: Mapping[str, Setting]) -> int | None:
    """Steps per epoch: 1 as in the paper, or the batches of a full pass; None without |B|."""
    value = {name: setting.value for name, setting in settings.items()}.get
    samples, batch = value("samples"), value("batch_size")
    if samples is None:
        return value("steps_per_epoch") or 1
    if batch is None:
        return None
    return (samples // batch if value("drop_last") else -(-samples // batch)) or None
