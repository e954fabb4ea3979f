"""One row of a table: its federation, and the paper's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from rlu_cli.experiments.setup import Setup

PRINTED_METHODS = ("llg+", "zlg+", "irlg", "rlu")  # the four the paper compares
Metric = Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One row of a table or one point of a figure.

    name       of the row; --only selects by it
    setup      the federation
    paper      method → "cacc" and "iacc" as printed
    auxiliary  data set of the auxiliary images, if it is not the clients' own
    per_class  auxiliary images of each class, if fewer than the server has
    """

    name: str
    setup: Setup
    paper: Mapping[str, Metric] = field(default_factory=dict)
    auxiliary: str | None = None
    per_class: int | None = None


def printed(*values: float) -> dict[str, Metric]:
    """iAcc of the four methods, in the order of the paper's columns."""
    return {m: {"iacc": v} for m, v in zip(PRINTED_METHODS, values, strict=True)}


def printed_pairs(*values: float) -> dict[str, Metric]:
    """cAcc and iAcc of the four methods, in the order of the paper's columns."""
    pairs = zip(values[::2], values[1::2], strict=True)
    named = zip(PRINTED_METHODS, pairs, strict=True)
    return {method: {"cacc": cacc, "iacc": iacc} for method, (cacc, iacc) in named}


def chosen(cells: list[Cell], only: str | None, most: int | None) -> list[Cell]:
    """The rows whose name matches `only`, at most `most` of them, taken from both ends."""
    fitting = [cell for cell in cells if only is None or fnmatchcase(cell.name, only)]
    if most is None or len(fitting) <= most:
        return fitting
    return [*fitting[: most - most // 2], *fitting[len(fitting) - most // 2 :]]
