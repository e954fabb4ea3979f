"""Figures 10 and 11: images per client and class at three concentrations (Eqs. 93, 94)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlu_cli.experiments.cell import Cell, chosen
from rlu_cli.experiments.images import Source, wanted
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.setup import Setup, usual
from rlu_cli.experiments.target import Nothing
from rlu_cli.experiments.write import caption, markdown_table, write_csv, write_text
from rlu_cli.simulator.images import load_pool
from rlu_cli.simulator.partition import Partition, partition
from rlu_cli.simulator.partition_plot import draw_partition, require_matplotlib, save_png
from rlu_cli.simulator.pool import Holding, set_apart

ALPHAS = (0.05, 0.5, 5.0)


@dataclass(frozen=True)
class Shown:
    """Data set of one figure, and the paper's words on a client's classes by alpha (B.5, B.6)."""

    dataset: str
    paper: Mapping[float, str]


_SAID = {0.05: '"only 2 or 3 classes"', 0.5: "–", 5.0: '"more balanced"'}
FIGURES: Mapping[str, Shown] = {
    "figure10": Shown("CIFAR10", {**_SAID, 0.5: '"40-50% classes" (B.6)'}),
    "figure11": Shown("CIFAR100", _SAID),
}
MOST = 95  # percent of a client's images
SEED = 0
EXPLAINED = (
    "Darker: more images, each panel with its own scale. *held*: classes of which a client has at "
    f"least one image, mean over clients (fewest to most). *{MOST} %*: its largest classes that "
    f"together are {MOST} % of its images. *redraws*: partitions rejected because a client had "
    "fewer images than a batch."
)


@dataclass(frozen=True)
class Dealt:
    """One panel: the partition at one concentration.

    counts  (clients, N)
    """

    alpha: float
    counts: NDArray[np.int64]
    redraws: int


def classes_held(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of classes of which each client has an image: counts (clients, N) → (clients,)."""
    held: NDArray[np.int64] = (counts > 0).sum(axis=1)
    return held


def classes_of_most(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Least number of classes that hold 95 % of a client's images: (clients, N) → (clients,).

    It is 0 for a client without images.
    """
    largest_first = -np.sort(-counts, axis=1)
    short = 100 * np.cumsum(largest_first, axis=1) < MOST * counts.sum(axis=1, keepdims=True)
    return np.where(counts.any(axis=1), short.sum(axis=1) + 1, 0)


def run(lab: Lab, name: str) -> list[Path]:
    """Draw the figure; write the counts as a CSV and their summary as a table."""
    require_matplotlib(name)
    dataset = FIGURES[name].dataset
    setup = lab.scale.fitted(usual(dataset))
    if not chosen([Cell(f"{dataset}-partition", setup)], lab.only, None):
        raise Nothing("no row fits --only")
    source = lab.source(dataset)
    if source is None:
        raise Nothing(f"no {wanted(dataset)} in {lab.data}")
    lab.watch.expect(1)
    lab.watch.say(f"{name}: partitioning the images")
    holding = set_apart(load_pool(str(source.path), SEED), lab.auxiliary(setup), SEED)
    dealt = [_deal(holding, setup, alpha) for alpha in ALPHAS]
    picture = lab.out / f"{name}.png"
    _draw(dealt, holding.class_names, source.label, picture)
    lab.watch.done(f"{name}: drawn")
    return [
        write_text(lab.out / f"{name}.md", _markdown(lab, name, source, setup, dealt)),
        write_csv(lab.out / f"{name}.csv", _lines(name, source, dealt, holding.class_names)),
        picture,
    ]


def _deal(holding: Holding, setup: Setup, alpha: float) -> Dealt:
    """The partition of this data set's runs at concentration `alpha`."""
    labels = holding.client_labels
    dealt: Partition = partition(labels, setup.clients, alpha, setup.batch, SEED)
    return Dealt(alpha, dealt.counts(labels, len(holding.class_names)), dealt.redraws)


def _draw(dealt: Sequence[Dealt], names: Sequence[str], heading: str, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(dealt), 2 + 0.3 * min(len(names), 24)))
    figure.suptitle(heading)
    figure.subplots_adjust(wspace=0.45)
    panels = figure.subplots(1, len(dealt))
    for letter, axes, panel in zip("abc", panels, dealt, strict=True):
        draw_partition(axes, panel.counts, names)
        axes.set_title(f"({letter}) alpha = {panel.alpha:g}")
    save_png(figure, file)


def _markdown(lab: Lab, name: str, source: Source, setup: Setup, dealt: Sequence[Dealt]) -> str:
    images, (clients, classes) = int(dealt[0].counts.sum()), dealt[0].counts.shape
    header = ["alpha", "held", f"{MOST} %", "images of a client", "redraws", "the paper"]
    parts = [
        f"# Figure {name.removeprefix('figure')}: class distribution of the clients' images",
        f"![images per client and class]({name}.png)",
        f"{source.label}: {images:,} training images of {classes} classes, {clients} clients, "
        f"each with at least |B| = {setup.batch}; {lab.auxiliary(setup)} images of each class are "
        "the server's.",
        caption(lab, [date.today().isoformat()]),
        EXPLAINED,
        markdown_table(header, [_row(one, FIGURES[name].paper[one.alpha]) for one in dealt]),
        f"{clients} clients hold {classes} classes between them, so a client holds at least "
        f"{classes / clients:g} on average whatever alpha is.",
    ]
    return "\n\n".join(parts) + "\n"


def _row(dealt: Dealt, paper: str) -> list[str]:
    counts = dealt.counts
    spans = (classes_held(counts), classes_of_most(counts), counts.sum(axis=1))
    return [f"{dealt.alpha:g}", *map(_span, spans), str(dealt.redraws), paper]


def _span(values: NDArray[np.int64]) -> str:
    return f"{values.mean():.1f} ({values.min()} to {values.max()})"


def _lines(
    name: str, source: Source, dealt: Sequence[Dealt], names: Sequence[str]
) -> list[dict[str, Any]]:
    """One line for every concentration, client and class."""
    return [
        {
            "figure": name,
            "images": source.label,
            "alpha": panel.alpha,
            "client": client,
            "class": label,
            "name": names[label],
            "count": int(panel.counts[client, label]),
        }
        for panel in dealt
        for client, label in np.ndindex(panel.counts.shape)
    ]
