"""What BatchNorm counters tell of the number of steps between two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

from rlu_cli.checkpoints import CheckpointPair, counter_changes
from rlu_cli.types import Setting

INFERRED = "inferred from BatchNorm counters"  # begins the source of what they told


def inferred_epochs(settings: Mapping[str, Setting], pair: CheckpointPair) -> Setting | None:
    """The epochs that nobody told, from the steps that the counters show and those of one epoch.

    None where they are told, or where the counters show no whole number of them.
    """
    steps, each = pair.steps, _steps_of_an_epoch(settings)
    if "epochs" in settings or not steps or each is None or steps % each:
        return None
    passes = counter_changes(*pair)
    spread = f"{min(passes):g} to {max(passes):g} over {len(passes)} layers, most say {steps}"
    agreed = f"all {len(passes)} layers count {steps}" if len(passes) > 1 else f"it counts {steps}"
    return Setting(steps // each, f"{INFERRED}, {agreed if len(set(passes)) == 1 else spread}")


def step_hints(settings: Mapping[str, Setting], pair: CheckpointPair) -> list[str]:
    """What the counters tell of the steps where that is not enough to say the epochs."""
    passes, steps = counter_changes(*pair), pair.steps
    if "epochs" in settings or inferred_epochs(settings, pair) is not None or not passes:
        return []
    if steps is None:
        spread = f"{min(passes):g} to {max(passes):g} over {len(passes)} layers"
        return [f"BatchNorm counters do not agree on a whole number of steps: {spread}"]
    if not steps:
        return ["BatchNorm counters did not move"]
    each = _steps_of_an_epoch(settings)
    whole = "" if each is None else f", which are no whole number of epochs of {each}"
    return [f"BatchNorm counters show {steps} steps in all{whole}"]


def _steps_of_an_epoch(settings: Mapping[str, Setting]) -> int | None:
    """1, as in the paper, or the batches of a full pass; None where the batch size is not told."""
    value = {name: setting.value for name, setting in settings.items()}.get
    samples, batch = value("samples"), value("batch_size")
    if samples is None:
        return value("steps_per_epoch") or 1
    if batch is None:
        return None
    return (samples // batch if value("drop_last") else -(-samples // batch)) or None
