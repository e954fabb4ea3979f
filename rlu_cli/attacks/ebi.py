"""EBI, the bias-only baseline in Gat & Sharif's paper on LLBG, AISec 2024."""

from __future__ import annotations

import torch

from rlu_cli.attacks.answer import counted, labels_to_give, shared
from rlu_cli.attacks.method import Method
from rlu_cli.numerics.greedy import two_stages
from rlu_cli.types import Evidence, Recovery


def ebi(evidence: Evidence) -> Recovery:
    """LLG's two stages on the bias gradient alone, with impact Σ_{G_b < 0} G_b / K."""
    bias = evidence.gradient.bias
    assert bias is not None
    total = labels_to_give(evidence)
    if not bool((bias < 0).any()):
        return shared(evidence, torch.zeros_like(bias))  # undetermined
    impact = float(bias.clamp(max=0).sum()) / total
    counts = two_stages(bias, bias < 0, torch.full_like(bias, -impact), total)
    return counted(evidence, counts, impact=impact)


METHOD = Method(
    title="EBI",
    paper="Gat & Sharif 2024, AISec",
    attack=ebi,
    several_steps=False,
)
