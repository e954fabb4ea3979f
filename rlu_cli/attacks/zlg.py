"""ZLG and ZLG+: Geng et al., "Towards general deep leakage in federated learning", 2110.09074."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from rlu_cli.attacks.answer import dummy_ends, ends, mean_of, shared
from rlu_cli.attacks.method import Method
from rlu_cli.attacks.observations import DUMMIES
from rlu_cli.numerics.output_means import embedding_sums
from rlu_cli.types import Evidence, Outputs, Recovery

RANDOM = 2  # the label of random images among the dummies


def zlg(evidence: Evidence) -> Recovery:
    """N_c = K (p̄_c - Σ_l G_W[c, l] / Ō), with p̄ and Ō from random noise inputs.

    p̄ (N,) is the mean softmax, Ō the mean of Σ_l e_l. Fails if Ō is near 0, as after Tanh.
    """
    return _solve(evidence, [_noise(outputs) for outputs in dummy_ends(evidence)])


def zlg_plus(evidence: Evidence) -> Recovery:
    """ZLG with p̄ and Ō from auxiliary images; with several steps, the mean over both ends.

    Paper note: p̄_c is the mean over all images, as in the method's own paper; the code released
    with RLU averages p_c over class c alone.
    """
    return _solve(evidence, list(ends(evidence)))


def means(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """p̄ (N,) and Ō (), the mean softmax and the mean of Σ_l e_l."""
    return outputs.probabilities.mean(0), embedding_sums(outputs).mean()


def _solve(evidence: Evidence, outputs: list[Outputs]) -> Recovery:
    confidence, size = (mean_of(list(part)) for part in zip(*map(means, outputs), strict=True))
    found = confidence - evidence.gradient.weight.sum(1) / size
    return shared(evidence, found, embedding_sum=float(size))


def _noise(dummies: Outputs) -> Outputs:
    is_random = dummies.labels == RANDOM
    return replace(
        dummies,
        embeddings=dummies.embeddings[is_random],
        logits=dummies.logits[is_random],
        labels=dummies.labels[is_random],
    )


_PAPER = "Geng et al. 2021, arXiv 2110.09074"
ZLG = Method(
    title="ZLG",
    paper=_PAPER,
    attack=zlg,
    any_activation=False,
    several_steps=False,
    trained=False,
    needs=frozenset({DUMMIES}),
)
ZLG_PLUS = Method(
    title="ZLG+",
    paper=_PAPER,
    attack=zlg_plus,
    any_activation=False,
    trained=False,
    auxiliary=True,
)
