"""Table 5: RLU with auxiliary images from a shifted distribution."""

from __future__ import annotations

from pathlib import Path

from rlu_cli.experiments.cell import Cell
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import measure_all
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.summary import OWN
from rlu_cli.experiments.write import write_table

TITLE = "Table 5: iAcc on CIFAR-10 with shifted auxiliary images (VGG-16, m = 10)"
PER_CLASS = (5, 10, 50, 100)
# Auxiliary images, activation: RLU's iAcc with so many images of each class.
PRINTED = {
    ("CIFAR-10.1", "relu"): (0.915, 0.915, 0.911, 0.924),
    ("CIFAR-10.1", "elu"): (0.597, 0.837, 0.855, 0.862),
    ("CIFAR-10.2", "relu"): (0.688, 0.909, 0.918, 0.915),
    ("CIFAR-10.2", "elu"): (0.596, 0.813, 0.852, 0.851),
}
UNSHIFTED = {"relu": 0.946, "elu": 0.923}  # Table 2
NOTES = (
    "The print names its rows C10.1 ReLU, C10.2 ELU, C10.1 ReLU, C10.2 ELU, two of them alike; "
    "they are read here as C10.1 ReLU, C10.1 ELU, C10.2 ReLU, C10.2 ELU.",
    "The first rows have images of the clients' own distribution, as Table 2 does, for comparison.",
)


def cells() -> list[Cell]:
    """The unshifted rows of Table 2, then every figure of the print."""
    own = [
        Cell(f"own-{act}", usual("CIFAR10", act=act), {OWN: {"iacc": figure}})
        for act, figure in UNSHIFTED.items()
    ]
    shifted = [
        Cell(
            f"{auxiliary}-{act}-{count}",
            usual("CIFAR10", act=act),
            {OWN: {"iacc": figure}},
            auxiliary=auxiliary,
            per_class=count,
        )
        for (auxiliary, act), figures in PRINTED.items()
        for count, figure in zip(PER_CLASS, figures, strict=True)
    ]
    return own + shifted


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the table."""
    rows, left = measure_all(lab, name, cells())
    return write_table(lab, name, TITLE, rows, left, methods=(OWN,), notes=NOTES)
