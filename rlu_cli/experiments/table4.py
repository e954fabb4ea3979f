"""Table 4: every method on schemes other than plain FedAvg."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlu_cli.experiments.cell import Cell, printed
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import measure_all
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.write import write_table

TITLE = "Table 4: iAcc on FedProx, SGD with momentum, FedDyn and SCAFFOLD (ReLU, m = 10)"
RATES = {"SVHN": 0.01, "CIFAR10": 0.05, "CIFAR100": 0.05}  # B.2.4
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fedprox0.5": {"scheme": "fedprox", "pull": 0.5},
    "fedprox5": {"scheme": "fedprox", "pull": 5.0},
    "sgdm0.1": {"momentum": 0.1},
    "sgdm0.9": {"momentum": 0.9},
    "feddyn0.5-t2": {"scheme": "feddyn", "pull": 0.5, "rounds": 2},
    "feddyn0.5-t6": {"scheme": "feddyn", "pull": 0.5, "rounds": 6},
    "scaffold-t2": {"scheme": "scaffold", "rounds": 2},
    "scaffold-t6": {"scheme": "scaffold", "rounds": 6},
}
# Scheme, data set: iAcc of LLG+, ZLG+, iRLG and RLU.
PRINTED = {
    ("fedprox0.5", "SVHN"): (0.917, 0.656, 0.982, 0.991),
    ("fedprox0.5", "CIFAR10"): (0.747, 0.795, 0.691, 0.938),
    ("fedprox0.5", "CIFAR100"): (0.805, 0.791, 0.594, 0.930),
    ("fedprox5", "SVHN"): (0.079, 0.566, 0.881, 0.973),
    ("fedprox5", "CIFAR10"): (0.665, 0.682, 0.616, 0.899),
    ("fedprox5", "CIFAR100"): (0.659, 0.626, 0.493, 0.929),
    ("sgdm0.1", "SVHN"): (0.951, 0.520, 0.819, 0.987),
    ("sgdm0.1", "CIFAR10"): (0.884, 0.872, 0.919, 0.935),
    ("sgdm0.1", "CIFAR100"): (0.855, 0.826, 0.856, 0.915),
    ("sgdm0.9", "SVHN"): (0.737, 0.870, 0.114, 0.916),
    ("sgdm0.9", "CIFAR10"): (0.883, 0.871, 0.450, 0.928),
    ("sgdm0.9", "CIFAR100"): (0.864, 0.859, 0.755, 0.882),
    ("feddyn0.5-t2", "SVHN"): (0.185, 0.676, 0.819, 0.921),
    ("feddyn0.5-t2", "CIFAR10"): (0.861, 0.859, 0.693, 0.919),
    ("feddyn0.5-t2", "CIFAR100"): (0.748, 0.742, 0.536, 0.861),
    ("feddyn0.5-t6", "SVHN"): (0.084, 0.567, 0.738, 0.863),
    ("feddyn0.5-t6", "CIFAR10"): (0.842, 0.833, 0.667, 0.889),
    ("feddyn0.5-t6", "CIFAR100"): (0.626, 0.616, 0.402, 0.861),
    ("scaffold-t2", "SVHN"): (0.377, 0.477, 0.428, 0.874),
    ("scaffold-t2", "CIFAR10"): (0.796, 0.805, 0.507, 0.853),
    ("scaffold-t2", "CIFAR100"): (0.821, 0.798, 0.286, 0.858),
    ("scaffold-t6", "SVHN"): (0.229, 0.541, 0.426, 0.814),
    ("scaffold-t6", "CIFAR10"): (0.590, 0.785, 0.499, 0.817),
    ("scaffold-t6", "CIFAR100"): (0.806, 0.783, 0.286, 0.860),
}


def cells() -> list[Cell]:
    """The rows in the paper's order, one per λ, γ and t."""
    return [
        Cell(
            f"{dataset}-{scheme}",
            usual(dataset, lr=RATES[dataset], **SCHEMES[scheme]),
            printed(*values),
        )
        for (scheme, dataset), values in PRINTED.items()
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the table."""
    rows, left = measure_all(lab, name, cells())
    return write_table(lab, name, TITLE, rows, left)
