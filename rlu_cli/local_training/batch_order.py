"""Which of its images a client uses in each local step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlu_cli.local_training.step_plan import StepPlan as Steps


def draw_batches(count: int, steps: Steps, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Draw the image indices of each local step's batch; batch τ has `steps.batch_sizes[τ]` images.

    count  images the client has
    steps  number of steps, batch sizes and passes

    The images come in shuffled order. They are shuffled again when they run out, even within a
    batch, and at the start of every full pass.
    """
    assert steps.batch_sizes is not None, "batches can only be drawn if their sizes are known"
    one_pass = steps.batch_sizes[: steps.steps // steps.passes]
    return [batch for _ in range(steps.passes) for batch in _shuffled(count, one_pass, rng)]


def _shuffled(
    count: int, sizes: Sequence[int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    times = -(-sum(sizes) // count)
    order = np.concatenate([rng.permutation(count) for _ in range(times)])
    return np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])
