"""Table 2: every method on untrained models, one local step and ten."""

from __future__ import annotations

from pathlib import Path

from rlu_cli.experiments.cell import Cell, printed_pairs
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.measure import measure_all
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.write import write_table

TITLE = "Table 2: untrained models, cAcc and iAcc"
# m, data set, activation: cAcc and iAcc of LLG+, ZLG+, iRLG and RLU.
PRINTED = {
    (1, "SVHN", "relu"): (0.980, 0.984, 0.810, 0.906, 0.998, 1.000, 1.000, 1.000),
    (1, "SVHN", "tanh"): (0.199, 0.063, 0.314, 0.831, 0.994, 1.000, 1.000, 1.000),
    (1, "CIFAR10", "relu"): (0.982, 0.981, 0.907, 0.982, 0.961, 0.979, 1.000, 1.000),
    (1, "CIFAR10", "elu"): (0.845, 0.925, 0.962, 0.932, 0.920, 0.936, 0.994, 0.996),
    (1, "CIFAR100", "relu"): (0.960, 0.932, 0.888, 0.943, 0.981, 0.992, 1.000, 1.000),
    (1, "CIFAR100", "selu"): (0.267, 0.104, 0.893, 0.855, 0.958, 0.982, 1.000, 1.000),
    (1, "Tiny", "relu"): (0.998, 0.938, 0.880, 0.666, 0.992, 0.995, 1.000, 1.000),
    (1, "Tiny", "silu"): (0.953, 0.794, 0.847, 0.534, 0.989, 1.000, 1.000, 1.000),
    (10, "SVHN", "relu"): (0.863, 0.934, 0.496, 0.644, 0.996, 0.997, 1.000, 1.000),
    (10, "SVHN", "tanh"): (0.218, 0.164, 0.551, 0.699, 0.976, 0.996, 1.000, 1.000),
    (10, "CIFAR10", "relu"): (0.674, 0.875, 0.671, 0.866, 0.843, 0.717, 0.845, 0.946),
    (10, "CIFAR10", "elu"): (0.688, 0.812, 0.682, 0.798, 0.808, 0.650, 0.866, 0.923),
    (10, "CIFAR100", "relu"): (0.902, 0.948, 0.693, 0.929, 0.463, 0.902, 0.922, 0.981),
    (10, "CIFAR100", "selu"): (0.072, 0.014, 0.400, 0.840, 0.466, 0.689, 0.843, 0.904),
    (10, "Tiny", "relu"): (0.929, 0.921, 0.643, 0.723, 0.792, 0.937, 0.957, 0.976),
    (10, "Tiny", "silu"): (0.922, 0.840, 0.589, 0.759, 0.983, 0.984, 0.991, 0.996),
}


def cells() -> list[Cell]:
    """The rows in the paper's order."""
    return [
        Cell(
            f"{dataset}-{act}-m{steps}",
            usual(dataset, act=act, steps=steps),
            printed_pairs(*values),
        )
        for (steps, dataset, act), values in PRINTED.items()
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the table."""
    rows, left = measure_all(lab, name, cells())
    return write_table(lab, name, TITLE, rows, left, metrics=("cacc", "iacc"))
