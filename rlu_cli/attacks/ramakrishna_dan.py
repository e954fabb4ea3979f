"""Ramakrishna & Dán, inferring class-label distributions in federated learning, AISec 2022."""

from __future__ import annotations

import torch

from rlu_cli.attacks.answer import shared
from rlu_cli.attacks.method import Method
from rlu_cli.attacks.observations import CLASS_UPDATES
from rlu_cli.numerics.output_means import class_confidence
from rlu_cli.numerics.simplex import mixture
from rlu_cli.types import Evidence, Recovery


def closed_form(evidence: Evidence) -> Recovery:
    """Shares p of (I - (m-1)/m · Sᵀ) p = Δb/(m η) + softmax(b)/m, negatives to 0.

    The mean prediction is softmax(b) of the global model's bias in the first step, and that of
    S[n, j] of the global model on auxiliary images in the others.
    """
    steps, classes = evidence.steps, evidence.classes
    bias = evidence.origin.bias
    start = torch.zeros(classes) if bias is None else bias
    matrix = torch.eye(classes) - (steps - 1) / steps * class_confidence(evidence.before).T
    target = evidence.signal.double().cpu() + torch.softmax(start.double().cpu(), 0) / steps
    return shared(evidence, torch.linalg.pinv(matrix) @ target)


def virtual_clients(evidence: Evidence) -> Recovery:
    """Shares p of min ‖Σ_c p_c Δb_c - Δb‖, p ≥ 0, Σp = 1, with single-class virtual clients.

    Δb_c is the update of a virtual client trained on auxiliary images of class c alone, from the
    same model with the same settings. Works for any optimiser.
    """
    learned = evidence.learned.bias
    assert learned is not None
    found = mixture(evidence[CLASS_UPDATES].T, learned)
    return shared(evidence, found.shares, found.status, residual=found.residual)


_PAPER = "Ramakrishna & Dán 2022, AISec"
CLOSED_FORM = Method(
    title="Ramakrishna-Dán",
    paper=_PAPER,
    attack=closed_form,
    auxiliary=True,
)
VIRTUAL_CLIENTS = Method(
    title="Ramakrishna-Dán, virtual clients",
    paper=_PAPER,
    attack=virtual_clients,
    auxiliary=True,
    any_optimiser=True,
    needs=frozenset({CLASS_UPDATES}),
)
