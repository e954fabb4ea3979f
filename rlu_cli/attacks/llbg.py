"""LLBG: Gat & Sharif, label leakage from bias gradients, AISec 2024."""

from __future__ import annotations

from rlu_cli.attacks.answer import counted, ends, labels_to_give, mean_of
from rlu_cli.attacks.method import Method
from rlu_cli.numerics.greedy import hand_out, two_stages
from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.types import Evidence, Recovery


def llbg(evidence: Evidence) -> Recovery:
    """Greedy labels from the bias gradient of the round, b = m G_b, and the class confidence.

    Present classes (b < 0) get one label each, b_c += (1 - conf_c)/|B|. Then b -= m/N, and every
    remaining label goes to the class of lowest b.

    conf_c is the mean softmax of class c on its own auxiliary images; with several steps, the mean
    over both ends of the round.
    """
    bias = evidence.gradient.bias
    assert bias is not None
    total, steps = labels_to_give(evidence), evidence.steps
    own = mean_of([class_confidence(outputs).diagonal() for outputs in ends(evidence)])
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
