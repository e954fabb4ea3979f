"""Table 6: Gaussian noise on the gradients, under both interpretations of what it is added to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from rlu_cli.experiments.cell import Cell
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import Row, measure_all
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.summary import OWN, mean_of
from rlu_cli.experiments.write import write_table
from rlu_cli.simulator.defences import NOISE_ON

TITLE = "Table 6: RLU's iAcc under Gaussian noise on the gradients (ReLU)"
DEVIATIONS = (0.05, 0.1, 0.2, 0.5)
# Data set, m: RLU's iAcc at these standard deviations.
PRINTED = {
    ("SVHN", 1): (0.968, 0.942, 0.905, 0.812),
    ("SVHN", 10): (0.844, 0.727, 0.606, 0.484),
    ("CIFAR10", 1): (0.909, 0.908, 0.902, 0.830),
    ("CIFAR10", 10): (0.906, 0.877, 0.792, 0.622),
    ("CIFAR100", 1): (0.999, 0.977, 0.933, 0.831),
    ("CIFAR100", 10): (0.854, 0.732, 0.592, 0.409),
}
INTERPRETATIONS = {
    "batch": "on the mean gradient of every step",
    "sample": "on every sample's gradient before the mean, which leaves σ/√|B| on the mean",
}
UNCLEAR = (
    "The paper does not say what the noise is added to; both interpretations are run: "
    + "; ".join(f"*{name}*: {text}" for name, text in INTERPRETATIONS.items())
    + ". The learning rate is assumed to be 0.01, as in Table 2."
)
_FAR = 0.05  # difference in iAcc; it must also exceed two standard errors


def cells() -> list[Cell]:
    """Every printed value, under each interpretation."""
    return [
        Cell(
            f"{dataset}-m{steps}-noise{noise:g}-{noise_on}",
            usual(dataset, steps=steps, noise=noise, noise_on=noise_on),
            {OWN: {"iacc": value}},
        )
        for noise_on in NOISE_ON
        for (dataset, steps), values in PRINTED.items()
        for noise, value in zip(DEVIATIONS, values, strict=True)
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the table."""
    rows, left = measure_all(lab, name, cells())
    notes = (UNCLEAR, *fits(rows))
    return write_table(lab, name, TITLE, rows, left, methods=(OWN,), notes=notes)


def fits(rows: Sequence[Row]) -> list[str]:
    """Mean distance of each interpretation from the paper, the nearer one, and its outliers."""
    distances = {
        noise_on: statistics.mean(abs(gap) for gap in gaps)
        for noise_on in INTERPRETATIONS
        if (gaps := [_gap(row) for row in rows if row.setup.noise_on == noise_on])
    }
    if not distances:
        return []
    listed = "; ".join(f"*{name}* {distance:.3f}" for name, distance in distances.items())
    nearest = min(distances, key=lambda name: distances[name])
    outliers = [
        f"{row.cell.name} ({_gap(row):+.3f})"
        for row in rows
        if row.setup.noise_on == nearest and _is_far(row)
    ]
    return [
        f"Mean distance of iAcc from the paper: {listed}. *{nearest}* is the nearer one.",
        f"Rows that differ from the paper by more than {_FAR:g} and two standard errors: "
        f"{', '.join(outliers) or 'none'}.",
    ]


def _gap(row: Row) -> float:
    """Our mean iAcc minus the paper's."""
    return statistics.mean(row.values(OWN, "iacc")) - row.cell.paper[OWN]["iacc"]


def _is_far(row: Row) -> bool:
    ours = mean_of(row.values(OWN, "iacc"))
    gap = abs(_gap(row))
    return gap > _FAR and ours is not None and not gap <= 2 * ours.error
