"""GradInversion's label restoration: Yin et al., "See through gradients", CVPR 2021, Eq. 8."""

from __future__ import annotations

import torch

from rlu_cli.attacks.answer import present_only
from rlu_cli.attacks.method import SET, Method
from rlu_cli.types import Evidence, Recovery


def gradinversion(evidence: Evidence) -> Recovery:
    """The K classes of smallest s_c = min_l G_W[c, l], all labels distinct (Eq. 8).

    If K exceeds the number of classes, labels cannot be distinct; if |B| is unknown, so is K. In
    both cases the set is {c : s_c < 0}.
    """
    smallest = evidence.gradient.weight.amin(1)  # (N,)
    total = evidence.total
    if total is None or total > evidence.classes:
        return present_only(evidence, smallest < 0)
    present = torch.zeros(evidence.classes, dtype=torch.bool)
    present[smallest.argsort(stable=True)[:total]] = True
    return present_only(evidence, present)


METHOD = Method(
    title="GI",
    paper="Yin et al. 2021, arXiv 2104.07586",
    attack=gradinversion,
    gives=SET,
    repeated=False,
    any_activation=False,
    several_steps=False,
)
