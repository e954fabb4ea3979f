"""Figures 4 to 9: logits of the training images against a normal distribution (Assumption 3.1)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rlu_cli.errors import printable
from rlu_cli.experiments.cell import Cell, chosen
from rlu_cli.experiments.images import Source, wanted
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.logit_panels import BINS, Panel, all_distances, draw_panels, panels
from rlu_cli.experiments.scale import Scale
from rlu_cli.experiments.setup import Setup, usual
from rlu_cli.experiments.target import Nothing
from rlu_cli.experiments.training_logits import training_logits
from rlu_cli.experiments.write import caption, markdown_table, write_csv, write_text
from rlu_cli.simulator.partition_plot import require_matplotlib

LILLIEFORS = 0.89  # /√n: KS of n draws from a normal is below this with probability 95 %
EXPLAINED = (
    f"Each histogram: logit j of every training image of class n, in {BINS} bins, under the global "
    "model in the mode its clients train in; the line is the normal of the same mean and standard "
    "deviation. Classes count from 0. *KS*: Kolmogorov-Smirnov distance between the two, 0 for a "
    f"perfect fit. *by chance*: 95 % quantile of KS for as many draws from a normal "
    f"({LILLIEFORS}/√n, Lilliefors)."
)
PAPER = {
    False: "The paper (B.3): means are close to 0 regardless of their sign.",
    True: "The paper (B.3): with training the means of j = n grow to larger positive values, those "
    "of j ≠ n fall to negative ones.",
}


@dataclass(frozen=True)
class Shown:
    """One figure of the paper: data set, training accuracy of the global model, round."""

    dataset: str
    accuracy: float | None
    round: int


FIGURES: Mapping[str, Shown] = {
    "figure4": Shown("SVHN", None, 0),
    "figure5": Shown("SVHN", 0.68, 4),
    "figure6": Shown("SVHN", 0.83, 9),
    "figure7": Shown("CIFAR10", None, 0),
    "figure8": Shown("CIFAR10", 0.80, 20),
    "figure9": Shown("CIFAR10", 0.95, 40),
}


def setup_of(shown: Shown, scale: Scale) -> Setup:
    """The federation (B.2), at this scale, whose global model of round 0 is evaluated.

    Below full scale a trained VGG-16 has a quarter of the width, which shortens training.
    """
    if shown.accuracy is None or shown.dataset == "SVHN":
        return scale.fitted(usual(shown.dataset, pretrain=shown.accuracy))
    model = "vgg16" if scale.name == "full" else "vgg16q"
    return scale.fitted(usual(shown.dataset, model=model, lr=0.05, pretrain=shown.accuracy))


@dataclass(frozen=True)
class Evaluated:
    """Content of one figure.

    reached    training accuracy of the global model, None if it is untrained
    images     number of training images
    panels     the six panels of the figure
    distances  KS of every pair of classes
    """

    name: str
    source: Source
    setup: Setup
    reached: float | None
    images: int
    class_names: tuple[str, ...]
    panels: Sequence[Panel]
    distances: Sequence[float]

    @property
    def stage(self) -> str:
        if self.reached is None:
            return "untrained"
        return f"pretrained centrally to {self.reached:.1%} training accuracy"

    @property
    def heading(self) -> str:
        return f"{self.source.label}; {self.setup.title}, {self.setup.act}, {self.stage}"


def run(lab: Lab, name: str) -> list[Path]:
    """Draw the figure; write its normality statistics as a table and a CSV."""
    require_matplotlib(name)
    shown = FIGURES[name]
    setup = setup_of(shown, lab.scale)
    stage = "untrained" if shown.accuracy is None else f"p{shown.accuracy:g}"
    if not chosen([Cell(f"{shown.dataset}-{setup.model}-{stage}", setup)], lab.only, None):
        raise Nothing("no row fits --only")
    source = lab.source(shown.dataset)
    if source is None:
        raise Nothing(f"no {wanted(shown.dataset)} in {lab.data}")
    lab.watch.expect(1)
    result = _evaluate(lab, name, source, setup)
    picture = lab.out / f"{name}.png"
    draw_panels(result.panels, result.heading, picture)
    lab.watch.done(f"{name}: drawn")
    return [
        write_text(lab.out / f"{name}.md", _markdown(lab, result)),
        write_csv(lab.out / f"{name}.csv", _lines(result)),
        picture,
    ]


def _evaluate(lab: Lab, name: str, source: Source, setup: Setup) -> Evaluated:
    simulation = lab.train(setup, source, (0,))
    lab.watch.say(f"{name}: logits of the training images")
    logits = training_logits(simulation)
    return Evaluated(
        name=name,
        source=source,
        setup=setup,
        reached=(simulation.run.noted("pretrain") or {}).get("reached"),
        images=len(logits.labels),
        class_names=simulation.federation.holding.class_names,
        panels=panels(logits),
        distances=all_distances(logits),
    )


def _markdown(lab: Lab, result: Evaluated) -> str:
    shown = FIGURES[result.name]
    header = ["panel", "n", "j", "images", "mean", "sd", "skewness", "excess kurtosis", "KS"]
    parts = [
        f"# Figure {result.name.removeprefix('figure')}: logits against a normal distribution",
        f"![histograms]({result.name}.png)",
        f"{result.heading}; {result.images:,} training images, batches of {result.setup.batch}.",
        caption(lab, [date.today().isoformat()]),
        EXPLAINED,
        markdown_table([*header, "by chance"], [_row(result, panel) for panel in result.panels]),
        f"KS of all {len(result.distances)} pairs of n and j: median "
        f"{statistics.median(result.distances):.3f}, largest {max(result.distances):.3f}.",
        f"{_printed_stage(shown)} {PAPER[shown.accuracy is not None]}",
    ]
    return "\n\n".join(parts) + "\n"


def _printed_stage(shown: Shown) -> str:
    at = "untrained" if shown.accuracy is None else f"at {shown.accuracy:.0%} training accuracy"
    return f"The paper's figure: {shown.dataset}, global round {shown.round}, {at}."


def _row(result: Evaluated, panel: Panel) -> list[str]:
    fit, images = panel.fit, len(panel.values)
    classes = [_named(result, index) for index in (panel.true, panel.component)]
    moments = [f"{moment:.3g}" for moment in (fit.mean, fit.sd)]  # may have any magnitude
    values = (fit.skewness, fit.kurtosis, fit.distance, LILLIEFORS / math.sqrt(images))
    return [panel.letter, *classes, str(images), *moments, *(f"{v:.3f}" for v in values)]


def _named(result: Evaluated, index: int) -> str:
    """A class by number, followed by its name if that is different."""
    name = printable(result.class_names[index], 40)
    return str(index) if name == str(index) else f"{index} ({name})"


def _lines(result: Evaluated) -> list[dict[str, Any]]:
    return [
        {
            "figure": result.name,
            "dataset": result.setup.dataset,
            "images": result.source.label,
            "model": result.setup.title,
            "activation": result.setup.act,
            "train_accuracy": result.reached,
            "panel": panel.letter,
            "n": panel.true,
            "j": panel.component,
            "images_of_n": len(panel.values),
            **asdict(panel.fit),
        }
        for panel in result.panels
    ]
