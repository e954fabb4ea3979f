"""Training steps between two checkpoints, from their BatchNorm counters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from rlu_cli.types import Checkpoint

COUNTER = "num_batches_tracked"
_WHOLE_UP_TO = {None: 2**24, "float16": 2**11, "bfloat16": 2**8}  # for counters kept as floats


def batch_norm_counters(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Training-mode forward passes of each BatchNorm layer, by the layer's name.

    Not always whole numbers: some servers average them with the weights.
    """
    return {
        name.removesuffix(COUNTER).removesuffix("."): float(tensor)
        for name, tensor in state.items()
        if name.split(".")[-1] == COUNTER and tensor.numel() == 1
    }


def counter_changes(before: Checkpoint, after: Checkpoint) -> list[float]:
    """Change of each layer's counter; empty if a counter is too large to be exact as a float."""
    first, second = (batch_norm_counters(checkpoint.state) for checkpoint in (before, after))
    if max(second.values(), default=0) > min(map(_countable, (before, after))):
        return []
    return [round(second[name] - first[name], 3) for name in first if name in second]


def counted_steps(before: Checkpoint, after: Checkpoint) -> int | None:
    """Training-mode passes between the two files, by the majority of BatchNorm counters.

    None when there are no counters or they do not agree on a whole number.
    """
    changes = counter_changes(before, after)
    if not changes:
        return None
    most, votes = Counter(changes).most_common(1)[0]
    return int(most) if most == int(most) >= 0 and votes * 2 > len(changes) else None


def _countable(checkpoint: Checkpoint) -> float:
    """The number up to which the file's counters represent every integer."""
    named = checkpoint.state.items()
    floats = any(k.endswith(COUNTER) and v.is_floating_point() for k, v in named)
    return _WHOLE_UP_TO[checkpoint.narrow] if floats else math.inf
