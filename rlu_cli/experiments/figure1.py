"""Figure 1: every method at increasing training accuracy of the global model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rlu_cli.attacks import ATTACKS
from rlu_cli.experiments.cell import Cell
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.lines import Line, Panel, Point, draw_lines
from rlu_cli.experiments.measure import Row, is_floor, measure_all
from rlu_cli.experiments.setup import usual
from rlu_cli.experiments.summary import OWN, mean_of
from rlu_cli.experiments.write import markdown_table, write_table
from rlu_cli.simulator.partition_plot import require_matplotlib

TITLE = "Figure 1: iAcc of every method at several training accuracies (ReLU, m = 10)"
STAGES = (0.4, 0.6, 0.8, 0.9)
SETUPS = (
    usual("CIFAR10", model="cnn", lr=0.05),
    usual("CIFAR10", model="vgg16q", lr=0.05),
    usual("SVHN", lr=0.01),
    usual("CIFAR10", lr=0.05),
    usual("CIFAR100", lr=0.05),
)
PAPER_SAYS = (
    "The paper has this figure as a picture only. Its section 4.4 says: RLU is above the baselines "
    "at all stages; 80 % iAcc when the training accuracy reaches 80 %; at 90 % iRLG reaches 75.6, "
    "83.3 and 72.6 % on SVHN, CIFAR-10 and CIFAR-100, 16.3, 17.3 and 23.9 points below RLU, and "
    "ZLG+ is 33.3, 21.1 and 30.1 points below it. That would put RLU at 91.9, 100.6 and 96.5 %, "
    "which is impossible for CIFAR-10 and above the value stated for 80 %. If instead the three "
    "values are RLU's, RLU is at 75.6, 83.3 and 72.6 %. Our values therefore have no printed "
    "counterpart."
)


def cells() -> list[Cell]:
    """Every model at every stage."""
    return [
        Cell(f"{setup.dataset}-{setup.model}-{stage:g}", replace(setup, pretrain=stage))
        for setup in SETUPS
        for stage in STAGES
    ]


def run(lab: Lab, name: str) -> list[Path]:
    """Reproduce the figure."""
    require_matplotlib(name)
    rows, left = measure_all(lab, name, cells())
    picture = lab.out / f"{name}.png"
    draw_lines([_panel(some) for some in by_model(rows).values()], picture)
    notes = [*map(stages_table, by_model(rows).values()), PAPER_SAYS, f"![{name}]({picture.name})"]
    return [*write_table(lab, name, TITLE, rows, left, notes=notes), picture]


def by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows grouped by data set and model, under a title that names both as used."""
    titles = {row.cell.name: f"{row.setup.title}, {row.images}" for row in rows}
    return {
        title: [row for row in rows if titles[row.cell.name] == title]
        for title in dict.fromkeys(titles.values())
    }


def stages_table(rows: Sequence[Row]) -> str:
    """Every method at every stage of one model, with the training accuracies reached."""
    header = [
        f"{rows[0].setup.title}, {rows[0].images}: iAcc at training accuracy",
        *(f"{accuracy(row):.1%}" for row in rows),
    ]
    lines = [
        [ATTACKS[method].title, *(str(mean_of(row.values(method, "iacc")) or "–") for row in rows)]
        for method in rows[0].methods
    ]
    return markdown_table(header, lines)


def accuracy(row: Row) -> float:
    """Training accuracy that the global model reached."""
    return float(row.records[0]["reached"])


def _panel(rows: Sequence[Row]) -> Panel:
    lines = [
        Line(
            ATTACKS[method].title,
            tuple(Point(accuracy(row), mean_of(row.values(method, "iacc"))) for row in rows),
            floor=is_floor(method),
            bold=method == OWN,
        )
        for method in rows[0].methods
    ]
    return Panel(f"{rows[0].setup.title}, {rows[0].images}", "training accuracy", tuple(lines))
