"""Image sizes: which one a flattened layer was most likely made for."""

from __future__ import annotations

# Sides of the images that data sets in common use have.
COMMON_SIDES = (28, 32, 64, 96, 128, 224, 256, 299)


def likely_side(lowest: int, step: int) -> int:
    """The common side among the `step` sides from `lowest` on, or `lowest` itself.

    Pooling rounds down, so as many sides in a row end in the same number of features: 24 to 31
    after three poolings, of which 28 is the one that data sets have.
    """
    return next((side for side in COMMON_SIDES if lowest <= side < lowest + step), lowest)
