"""Which of its images a client uses in each step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlu_cli.local_training.step_plan import StepPlan as Steps


def draw_batches(count: int, steps: Steps, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Indices of the images of each step's batch, in sizes that `steps` says.

    count  images the client has

    It goes through them in shuffled order and shuffles anew when they run out, within a batch too;
    with full passes over its samples, at the start of every pass.
    """
    assert steps.batch_sizes is not None, "batches are drawn in sizes that are known"
    one_pass = steps.batch_sizes[: steps.steps // steps.passes]
    return [batch for _ in range(steps.passes) for batch in _shuffled(count, one_pass, rng)]


def _shuffled(
    count: int, sizes: Sequence[int], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    times = -(-sum(sizes) // count)
    order = np.concatenate([rng.permutation(count) for _ in range(times)])
    return np.split(order[: sum(sizes)], np.cumsum(sizes)[:-1])
