"""What BatchNorm counters tell of the number of steps between two checkpoints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from rlu_cli.checkpoints import batch_norm_counters
from rlu_cli.types import Checkpoint, Setting

INFERRED = "inferred from BatchNorm counters"  # begins the source of what they told
_WHOLE_UP_TO = {None: 2**24, "float16": 2**11, "bfloat16": 2**8}  # of counters kept as floats


def counted_steps(pair: Sequence[Checkpoint]) -> int | None:
    """Training-mode passes between the two files, by the majority of BatchNorm counters.

    None when there are no counters or they do not agree on a whole number.
    """
    passes = _passes(pair)
    if not passes:
        return None
    most, votes = Counter(passes).most_common(1)[0]
    return int(most) if most == int(most) >= 0 and votes * 2 > len(passes) else None


def inferred_epochs(settings: Mapping[str, Setting], pair: Sequence[Checkpoint]) -> Setting | None:
    """The epochs that nobody told, from the steps that the counters show and those of one epoch.

    None where they are told, or where the counters show no whole number of them.
    """
    steps, each = counted_steps(pair), _steps_of_an_epoch(settings)
    if "epochs" in settings or not steps or each is None or steps % each:
        return None
    passes = _passes(pair)
    spread = f"{min(passes):g} to {max(passes):g} over {len(passes)} layers, most say {steps}"
    agreed = f"all {len(passes)} layers count {steps}" if len(passes) > 1 else f"it counts {steps}"
    return Setting(steps // each, f"{INFERRED}, {agreed if len(set(passes)) == 1 else spread}")


def step_hints(settings: Mapping[str, Setting], pair: Sequence[Checkpoint]) -> list[str]:
    """What the counters tell of the steps where that is not enough to say the epochs."""
    passes, steps = _passes(pair), counted_steps(pair)
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


def _passes(pair: Sequence[Checkpoint]) -> list[float]:
    """How far each layer's counter moved; none where their numbers are too coarse to tell."""
    if len(pair) != 2:
        return []
    before, after = (batch_norm_counters(checkpoint.state) for checkpoint in pair)
    if max(after.values(), default=0) > min(map(_countable, pair)):
        return []
    return [round(after[name] - before[name], 3) for name in before if name in after]


def _countable(checkpoint: Checkpoint) -> float:
    """The number up to which the file's counters skip none."""
    named = checkpoint.state.items()
    floats = any(k.endswith("num_batches_tracked") and v.is_floating_point() for k, v in named)
    return _WHOLE_UP_TO[checkpoint.narrow] if floats else math.inf


def _steps_of_an_epoch(settings: Mapping[str, Setting]) -> int | None:
    """1, as in the paper, or the batches of a full pass; None where the batch size is not told."""
    value = {name: setting.value for name, setting in settings.items()}.get
    samples, batch = value("samples"), value("batch_size")
    if samples is None:
        return value("steps_per_epoch") or 1
    if batch is None:
        return None
    return (samples // batch if value("drop_last") else -(-samples // batch)) or None
