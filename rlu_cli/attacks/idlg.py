"""iDLG: Zhao, Mopuri & Bilen, "Improved deep leakage from gradients", arXiv 2001.02610."""

from __future__ import annotations

import torch

from rlu_cli.attacks.answer import present_only
from rlu_cli.attacks.method import SET, Method
from rlu_cli.types import Evidence, Recovery


def idlg(evidence: Evidence) -> Recovery:
    """Class y of a single example: the one with a negative bias gradient, p_y - 1.

    For a batch, {c : Σ_l G_W[c, l] < 0}: the authors' sign rule, summed over the row. The rule
    holds for embeddings that are never negative.
    """
    gradient = evidence.gradient
    if evidence.total == 1:
        assert gradient.bias is not None
        present = torch.zeros(evidence.classes, dtype=torch.bool)
        present[gradient.bias.argmin()] = True
        return present_only(evidence, present)
    return present_only(evidence, gradient.weight.sum(1) < 0)


METHOD = Method(
    title="iDLG",
    paper="Zhao et al. 2020, arXiv 2001.02610",
    attack=idlg,
    gives=SET,
    batch=False,
    repeated=False,
    any_activation=False,
    several_steps=False,
)
