"""The likeliest image size for a flattened layer."""

from __future__ import annotations

# Image sides of common data sets.
COMMON_SIDES = (28, 32, 64, 96, 128, 224, 256, 299)


def likely_side(lowest: int, step: int) -> int:
    """The common side among the `step` sides from `lowest` on, or `lowest` itself.

    Pooling rounds down, so `step` consecutive sides give the same number of features: 24 to 31
    after three poolings, of which 28 is a common one.
    """
    return next((side for side in COMMON_SIDES if lowest <= side < lowest + step), lowest)
