"""Figure 2: iAcc of RLU with fewer auxiliary images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlu_cli.experiments.cell import Cell
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.lines import Line, Panel, Point, draw_lines
from rlu_cli.experiments.measure import Row, measure_all
from rlu_cli.experiments.setup import USUAL
from rlu_cli.experiments.summary import OWN, mean_of
from rlu_cli.experiments.write import write_table
from rlu_cli.simulator.partition_plot import require_matplotlib

TITLE = "Figure 2: RLU's iAcc with fewer auxiliary images (ReLU, m = 10)"
PER_CLASS = (5, 10, 50, 100)
# Largest loss in section 4.6, in points of iAcc; for the other data sets it says "close".
PRINTED_LOSS = {"CIFAR10": 2.4, "CIFAR100": 3.1}


def cells(lab: Lab) -> list[Cell]:
    """Each data set with every number of images per class, limited to what its server holds."""
    return [
        Cell(f"{dataset}-relu-{count}", setup, per_class=count)
        for dataset, setup in USUAL.items()
        for count in sorted({min(count, lab.auxiliary(setup)) for count in PER_CLASS})
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the figure."""
    require_matplotlib(name)
    rows, left = measure_all(lab, name, cells(lab))
    picture = lab.out / f"{name}.png"
    draw_lines([_panel(rows)], picture)
    notes = [*losses(rows), f"![{name}]({picture.name})"]
    return [*write_table(lab, name, TITLE, rows, left, methods=(OWN,), notes=notes), picture]


def losses(rows: Sequence[Row]) -> list[str]:
    """A sentence on each smaller set: its loss of iAcc against the largest of the data set."""
    sentences = []
    for dataset, some in _by_dataset(rows).items():
        *fewer, most = sorted(some, key=lambda row: row.per_class)
        best = most.values(OWN, "iacc")
        for row in fewer:
            own = row.values(OWN, "iacc")
            lost = mean_of([100 * (b - o) for b, o in zip(best, own, strict=True)])
            paper = PRINTED_LOSS.get(dataset)
            stated = "close to none" if paper is None else f"at most {paper:g}"
            sentences.append(
                f"{row.images}: {row.per_class} images a class instead of "
                f"{most.per_class} lose {lost} points of iAcc; the paper: {stated}."
            )
    return sentences


def _by_dataset(rows: Sequence[Row]) -> dict[str, list[Row]]:
    names = dict.fromkeys(row.cell.setup.dataset for row in rows)
    return {name: [row for row in rows if row.cell.setup.dataset == name] for name in names}


def _panel(rows: Sequence[Row]) -> Panel:
    lines = [
        Line(
            f"{some[0].images}, {some[0].setup.title}",
            tuple(Point(row.per_class, mean_of(row.values(OWN, "iacc"))) for row in some),
        )
        for some in _by_dataset(rows).values()
    ]
    return Panel("RLU", "auxiliary images of each class", tuple(lines), logarithmic=True)
