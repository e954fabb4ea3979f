"""How a table fits a narrow terminal: bars shrink first, then names wrap; numbers stay whole."""

from __future__ import annotations

LONGEST_BAR = 24
_BESIDE_BARS = 56  # columns left to names and numbers before a bar gets any


def bar_length(width: int) -> int:
    """Length of the longest bar on a terminal of that width, 0 for none."""
    return max(0, min(LONGEST_BAR, width - _BESIDE_BARS))


def bar(share: float | None, largest: float, length: int) -> str:
    """A bar for one share; the largest has the full length."""
    return "█" * round(length * (share or 0.0) / largest)
