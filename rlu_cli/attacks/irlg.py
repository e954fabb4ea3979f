"""iRLG: Ma et al., "Instance-wise batch label restoration via gradients", ICLR 2023 (iLRG)."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.attacks.answer import labels_to_give, shared
from rlu_cli.attacks.method import Method
from rlu_cli.types import Evidence, Head, Recovery


def irlg(evidence: Evidence) -> Recovery:
    """Counts k of the (N + 1) × N system Σ_c k_c = K, Σ_c P̂_c[i] k_c - k_i = K G_b[i].

    P̂_c = softmax(W ê_c + b) with the global model's output layer (W, b) and the embedding implied
    by class c's gradient, ê_c = G_W[c] / G_b[c]. Solved by pseudo-inverse; negatives to 0, largest
    remainder.

    Paper note: when one label is missing after rounding, the code released with iLRG raises all
    classes but one. Here the class with the largest remainder gets it.
    """
    gradient = evidence.gradient
    assert gradient.bias is not None
    classes = evidence.classes
    confidence = torch.softmax(_logits(evidence.origin, _embeddings(gradient)), 1)  # (c, i)
    total = labels_to_give(evidence)
    system = torch.cat([torch.ones(1, classes), confidence.T - torch.eye(classes)]).double()
    target = torch.cat([torch.ones(1).double(), gradient.bias]) * total
    return shared(evidence, torch.linalg.pinv(system) @ target)


def _embeddings(gradient: Head) -> Tensor:
    """ê_c = G_W[c] / G_b[c], (N, L); if G_b[c] = 0, the mean ê over the other classes."""
    bias = gradient.bias
    assert bias is not None
    implied = gradient.weight / torch.where(bias == 0, torch.inf, bias)[:, None]
    known = bias != 0
    typical = implied[known].mean(0) if known.any() else implied.mean(0)
    return torch.where(known[:, None], implied, typical)


def _logits(origin: Head, embeddings: Tensor) -> Tensor:
    logits = embeddings @ origin.weight.double().cpu().T
    return logits if origin.bias is None else logits + origin.bias.double().cpu()


METHOD = Method(
    title="iRLG",
    paper="Ma et al. 2023, ICLR",
    attack=irlg,
    several_steps=False,
    trained=False,
)
