"""Histograms of one logit over the images of one class, each with the normal fitted to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from rlu_cli.experiments.training_logits import Logits
from rlu_cli.numerics.normality import Normality, describe_normality
from rlu_cli.simulator.partition_plot import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLACES = ((1, 1), (5, 5), (9, 9), (1, 5), (1, 9), (5, 9))  # (n, j): true class and component
BINS = 100


@dataclass(frozen=True)
class Panel:
    """One histogram.

    true, component  n and j
    values           logit j of every image of class n, (n_true,)
    """

    letter: str
    true: int
    component: int
    values: Tensor
    fit: Normality

    @property
    def title(self) -> str:
        fit = self.fit
        return (
            f"({self.letter}) n = {self.true}, j = {self.component}\n"
            f"skewness {fit.skewness:.2f}, excess kurtosis {fit.kurtosis:.2f}, "
            f"KS {fit.distance:.3f}"
        )


def panels(logits: Logits) -> list[Panel]:
    """The six panels of the paper's figures."""
    return [
        Panel(letter, true, component, values, describe_normality(values))
        for letter, (true, component) in zip("abcdef", PLACES, strict=True)
        for values in (logits.panel(true, component),)
    ]


def all_distances(logits: Logits) -> list[float]:
    """Kolmogorov-Smirnov distance of every pair of classes n and j."""
    classes = range(logits.values.shape[1])
    return [describe_normality(logits.panel(n, j)).distance for n in classes for j in classes]


def draw_panels(shown: Sequence[Panel], heading: str, file: Path) -> None:
    """Write the panels as a PNG, in two rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7))
    figure.subplots_adjust(hspace=0.45, wspace=0.25)
    figure.suptitle(heading)
    for axes, panel in zip(figure.subplots(2, 3).flat, shown, strict=True):
        _draw(axes, panel)
    save_png(figure, file)


def _draw(axes: Axes, panel: Panel) -> None:
    values, fit = panel.values.double().numpy(), panel.fit
    _, edges, _ = axes.hist(values, bins=BINS, histtype="stepfilled", color="tab:blue", alpha=0.6)
    at = np.linspace(edges[0], edges[-1], 400)
    density = np.exp(-0.5 * ((at - fit.mean) / fit.sd) ** 2) / (fit.sd * np.sqrt(2 * np.pi))
    axes.plot(at, density * len(values) * (edges[1] - edges[0]), color="tab:red")
    axes.set_title(panel.title, fontsize="small")
    axes.set(xlabel=f"logit {panel.component}", ylabel="images")
