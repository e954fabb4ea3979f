"""LLBG: Gat & Sharif, label leakage from bias gradients, AISec 2024."""

from __future__ import annotations

from rlu_cli.attacks.answer import counted, ends, labels_to_give, mean_of
from rlu_cli.attacks.method import Method
from rlu_cli.numerics.greedy import hand_out, two_stages
from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.types import Evidence, Recovery


def llbg(evidence: Evidence) -> Recovery:
    """Labels by the bias gradient of the round, b = m G_b, with each class's own confidence.

    Present classes (b < 0) take one label, b_c += (1 - conf_c)/|B|; then b -= m/N, and the lowest
    class takes the next label, as often as there are labels.

    conf_c  mean softmax of class c on its own auxiliary images, over several steps the mean of
            both ends of the round
    """
    bias = evidence.gradient.bias
    assert bias is not None
    total, steps = labels_to_give(evidence), evidence.steps
    own = mean_of([class_confidence(seen).diagonal() for seen in ends(evidence)])
    rises = (1 - own) * steps / total
    values = bias * steps
    first = two_stages(values, values < 0, rises, min(total, int((values < 0).sum())))
    values = values + first * rises - steps / evidence.classes
    counts = first + hand_out(values, rises, total - int(first.sum()))
    return counted(evidence, counts)


METHOD = Method(
    title="LLBG",
    paper="Gat & Sharif 2024, AISec",
    attack=llbg,
    auxiliary=True,
)
