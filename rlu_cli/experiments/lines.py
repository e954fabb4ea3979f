"""Means over clients as lines with error bars, in a row of panels, as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlu_cli.experiments.summary import Mean
from rlu_cli.simulator.partition_plot import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = "osDv^<>pPX*hd"


@dataclass(frozen=True)
class Point:
    """One mean; None leaves a gap."""

    x: float
    y: Mean | None


@dataclass(frozen=True)
class Line:
    """One method or data set; floors are dashed and grey, the main line is bold."""

    label: str
    points: tuple[Point, ...]
    floor: bool = False
    bold: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines over one x axis, labelled `across`."""

    title: str
    across: str
    lines: tuple[Line, ...]
    logarithmic: bool = False


def draw_lines(panels: Sequence[Panel], file: Path) -> None:
    """Draw iAcc over each panel's x axis, with the standard error of each point if it has one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6 * len(panels), 4.8), layout="constrained")
    for place, panel in enumerate(panels, 1):
        _draw(figure.add_subplot(1, len(panels), place), panel)
    save_png(figure, file)


def _draw(axes: Axes, panel: Panel) -> None:
    from matplotlib import colormaps

    axes.set(title=panel.title, xlabel=panel.across, ylabel="iAcc", ylim=(-0.02, 1.02))
    if panel.logarithmic:
        _mark_values(axes, sorted({point.x for line in panel.lines for point in line.points}))
    colours = colormaps["tab20"]
    for number, line in enumerate(panel.lines):
        points = [(point.x, point.y) for point in line.points if point.y is not None]
        axes.errorbar(
            [x for x, _ in points],
            [y.value for _, y in points],
            yerr=[0.0 if math.isnan(y.error) else y.error for _, y in points],
            label=line.label,
            linestyle="--" if line.floor else "-",
            color="grey" if line.floor else colours(number % colours.N),
            marker="_" if line.floor else _MARKS[number % len(_MARKS)],
            linewidth=3 if line.bold else 1.2,
            markersize=5,
            capsize=2,
        )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))


def _mark_values(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic x axis with a tick at each value and none between."""
    axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
