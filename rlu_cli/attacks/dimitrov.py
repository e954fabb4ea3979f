"""Dimitrov et al., "Data leakage in federated averaging", TMLR 2022, arXiv 2206.12395."""

from __future__ import annotations

from rlu_cli.attacks.answer import mean_of, shared
from rlu_cli.attacks.method import Method
from rlu_cli.numerics.output_means import embedding_sums
from rlu_cli.types import Evidence, Recovery


def dimitrov(evidence: Evidence) -> Recovery:
    """Mean of ZLG's counts over all steps, with p̄ and Ō interpolated over the round.

    N_c = Σ_τ |B| (p̄_c^τ - Σ_l G_W[c, l] / Ō^τ); step τ is at the fraction τ/m of the round.
    """
    rows = evidence.gradient.weight.sum(1)
    start, end = (
        (outputs.probabilities.mean(0), embedding_sums(outputs).mean())
        for outputs in (evidence.before, evidence.after)
    )
    found = []
    for step in range(evidence.steps):
        fraction = step / evidence.steps
        confidence, size = (
            (1 - fraction) * a + fraction * b for a, b in zip(start, end, strict=True)
        )
        found.append(confidence - rows / size)
    return shared(evidence, mean_of(found))


METHOD = Method(
    title="Dimitrov",
    paper="Dimitrov et al. 2022, arXiv 2206.12395",
    attack=dimitrov,
    any_activation=False,
    trained=False,
    auxiliary=True,
)
