"""What tables of classes share: rows, names, and bars that shrink first on a narrow terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from rlu_cli.audit.class_label import label
from rlu_cli.reports.schema import ClassCount, JointShare

Row = TypeVar("Row", ClassCount, JointShare)
LONGEST_BAR = 24
_BESIDE_BARS = 56  # columns left to names and numbers before a bar gets any
_LONGEST_NAME = 1000
_ALL_SHOWN = 24  # classes up to which empty ones are listed too


def all_shown(classes: int) -> bool:
    """Whether classes without a label are listed too."""
    return classes <= _ALL_SHOWN


def shown_rows(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows to list: of many classes only those with labels."""
    return rows if all_shown(len(rows)) else [row for row in rows if row.share]


def hidden_line(classes: int, shown: int) -> str | None:
    """How many classes are not listed; None if all are."""
    return f"{classes - shown} classes without a label are not shown" if classes > shown else None


def class_name(row: ClassCount | JointShare) -> str:
    """A class as tables name it."""
    return label(row.index, row.name or "", _LONGEST_NAME)


def bar_length(width: int) -> int:
    """Length of the longest bar on a terminal of that width, 0 for none."""
    return max(0, min(LONGEST_BAR, width - _BESIDE_BARS))


def bar(share: float | None, largest: float, length: int) -> str:
    """A bar for one share; the largest has the full length."""
    return "█" * round(length * (share or 0.0) / largest)
