"""LLG, LLG* and LLG+: Wainakh et al., "User-level label leakage from gradients", 2105.09369."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.attacks.answer import counted, dummy_ends, ends, labels_to_give, mean_of, shared
from rlu_cli.attacks.method import Method
from rlu_cli.attacks.observations import DUMMIES
from rlu_cli.numerics.greedy import two_stages
from rlu_cli.numerics.output_means import class_gradient_sums, embedding_sums
from rlu_cli.types import Evidence, Outputs, Recovery


def llg(evidence: Evidence) -> Recovery:
    """Greedy labels from negative row sums g_c = Σ_l G_W[c, l], without offset.

    Every label lowers g by the impact i = (1/K)(1 + 1/N) Σ_{g_c < 0} g_c.
    """
    sums = evidence.gradient.weight.sum(1)
    own = float(sums.clamp(max=0).sum())
    return _greedy(evidence, sums, own, torch.zeros_like(sums))


def llg_star(evidence: Evidence) -> Recovery:
    """LLG with impact and offset from dummy images (black, white, random) instead of data.

    Dummy images can have any label: a batch of class c alone has the row sums
    Σ_l ∇W[j, l] = mean (p_j - [j = c]) Σ_l e_l over the dummies.
    """
    own, offset = zip(*(_of_dummies(outputs) for outputs in dummy_ends(evidence)), strict=True)
    sums = evidence.gradient.weight.sum(1)
    return _greedy(evidence, sums, float(mean_of(list(own))), mean_of(list(offset)))


def llg_plus(evidence: Evidence) -> Recovery:
    """LLG with impact and offset from auxiliary images, one batch per class.

    i = (1 + 1/N) mean_c gᶜ_c / K and s_j = mean_{c≠j} gᶜ_j, in units of the mean gradient; with
    several steps, the mean over both ends of the round.

    Paper note: the code released with RLU scores cAcc against the last batch alone. Here every
    method estimates the labels of the whole round.
    """
    own, offset = zip(*(_of_classes(outputs) for outputs in ends(evidence)), strict=True)
    sums = evidence.gradient.weight.sum(1)
    return _greedy(evidence, sums, float(mean_of(list(own))), mean_of(list(offset)))


def _of_classes(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """mean_c gᶜ_c and the offset s (N,), for each class the mean over batches of the others."""
    sums = class_gradient_sums(outputs)
    own = sums.diagonal()
    return own.mean(), (sums.sum(0) - own) / (len(sums) - 1)


def _of_dummies(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """mean_c gᶜ_c and the offset s (N,), on dummy images."""
    sums = embedding_sums(outputs)
    confident = (outputs.probabilities * sums[:, None]).mean(0)
    return confident.mean() - sums.mean(), confident


def _greedy(evidence: Evidence, sums: Tensor, own: float, offset: Tensor) -> Recovery:
    """LLG's two stages: one label to each class with g < 0, then the rest on g - offset.

    sums    (N,) g
    own     negative; (1 + 1/N) own / K is the impact
    offset  (N,) s
    """
    classes, total = len(sums), labels_to_give(evidence)
    if not bool((sums < 0).any()):
        return shared(evidence, torch.zeros(classes))  # undetermined
    impact = (1 + 1 / classes) * own / total
    rises = torch.full_like(sums, -impact)
    counts = two_stages(sums - offset, sums < 0, rises, total)
    return counted(evidence, counts, impact=impact)


_PAPER = "Wainakh et al. 2022, arXiv 2105.09369"
LLG = Method(
    title="LLG",
    paper=_PAPER,
    attack=llg,
    any_activation=False,
    several_steps=False,
)
LLG_STAR = Method(
    title="LLG*",
    paper=_PAPER,
    attack=llg_star,
    any_activation=False,
    needs=frozenset({DUMMIES}),
)
LLG_PLUS = Method(
    title="LLG+",
    paper=_PAPER,
    attack=llg_plus,
    any_activation=False,
    auxiliary=True,
)
