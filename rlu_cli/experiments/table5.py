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
# Auxiliary images, activation: RLU's iAcc at each of PER_CLASS.
PRINTED = {
    ("CIFAR-10.1", "relu"): (0.915, 0.915, 0.911, 0.924),
    ("CIFAR-10.1", "elu"): (0.597, 0.837, 0.855, 0.862),
    ("CIFAR-10.2", "relu"): (0.688, 0.909, 0.918, 0.915),
    ("CIFAR-10.2", "elu"): (0.596, 0.813, 0.852, 0.851),
}
UNSHIFTED = {"relu": 0.946, "elu": 0.923}  # Table 2
NOTES = (
    "The paper labels its rows C10.1 ReLU, C10.2 ELU, C10.1 ReLU, C10.2 ELU, which repeats two "
    "labels; they are interpreted as C10.1 ReLU, C10.1 ELU, C10.2 ReLU, C10.2 ELU.",
    "The first rows use images of the clients' own distribution, as in Table 2, for comparison.",
)


def cells() -> list[Cell]:
    """The unshifted rows of Table 2, then every printed value."""
    own = [
        Cell(f"own-{act}", usual("CIFAR10", act=act), {OWN: {"iacc": value}})
        for act, value in UNSHIFTED.items()
    ]
    shifted = [
        Cell(
            f"{auxiliary}-{act}-{count}",
            usual("CIFAR10", act=act),
            {OWN: {"iacc": value}},
            auxiliary=auxiliary,
            per_class=count,
        )
        for (auxiliary, act), values in PRINTED.items()
        for count, value in zip(PER_CLASS, values, strict=True)
    ]
    return own + shifted


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the table."""
    rows, left = measure_all(lab, name, cells())
    return write_table(lab, name, TITLE, rows, left, methods=(OWN,), notes=NOTES)
