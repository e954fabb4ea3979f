"""Table 3: CIFAR-10 at several concentrations alpha of the Dirichlet partition."""

from __future__ import annotations

from pathlib import Path

from rlu_cli.experiments.cell import Cell, printed
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import measure_all
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.write import write_table

TITLE = "Table 3: iAcc over the data heterogeneity alpha (VGG-16, ReLU, m = 10)"
# alpha: iAcc of LLG+, ZLG+, iRLG and RLU.
PRINTED = {
    0.05: (0.766, 0.747, 0.449, 0.961),
    0.1: (0.831, 0.812, 0.630, 0.947),
    0.5: (0.882, 0.867, 0.715, 0.944),
    1.0: (0.905, 0.897, 0.766, 0.943),
    5.0: (0.941, 0.944, 0.820, 0.931),
}


def cells() -> list[Cell]:
    """One row per printed column."""
    return [
        Cell(f"CIFAR10-alpha{alpha:g}", usual("CIFAR10", alpha=alpha), printed(*values))
        for alpha, values in PRINTED.items()
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the table."""
    rows, left = measure_all(lab, name, cells())
    return write_table(lab, name, TITLE, rows, left)
