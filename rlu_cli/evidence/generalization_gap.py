"""The generalisation gap: the model fits the client's training images better than auxiliary ones.

A server usually knows the training accuracy or loss of the global model. Auxiliary images weighted
by p_y^β, with β such that their weighted accuracy or loss equals it, stand in for training images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlu_cli.evidence.forward import ForwardConfig, mixed_order, outputs
from rlu_cli.types import Auxiliary, Checkpoint, Outputs

_STEEPEST = 64.0  # largest β: about one image per class then has all the weight
_HALVINGS = 40
_LEAST = 1e-6  # lower bound of p_y


@dataclass(frozen=True)
class GeneralizationGap:
    """Weights p_y^β with which auxiliary images match the model's fit to its training images.

    own       (A,) p_y of every image under the global model, in the order of the images
    exponent  β ≥ 0; 0 if the unweighted images already match or exceed it
    """

    own: Tensor
    exponent: float

    @property
    def likeness(self) -> Tensor | None:
        """p_y^β (A,), sampling weight of each image within its class; None for equal weights."""
        return self.own**self.exponent if self.exponent else None


def generalization_gap(
    model: nn.Module,
    checkpoint: Checkpoint,
    auxiliary: Auxiliary,
    config: ForwardConfig,
    *,
    accuracy: float | None,
    loss: float | None,
) -> GeneralizationGap | None:
    """Find β ≥ 0 by bisection; None if neither `accuracy` nor `loss` is given.

    accuracy  training accuracy of the global model, in evaluation mode
    loss      its mean cross-entropy on training data; ignored if the accuracy is given
    """
    if accuracy is None and loss is None:
        return None
    found = outputs(
        model, checkpoint.state, auxiliary, replace(config, training=False), checkpoint.path
    )
    own, right = _own_confidence(found, auxiliary, config.seed)

    def falls_short(beta: float) -> bool:
        weights = own**beta
        if accuracy is not None:
            return float((weights * right).sum() / weights.sum()) < accuracy
        assert loss is not None
        return float(-(weights * own.log()).sum() / weights.sum()) > loss

    if not falls_short(0.0):
        return GeneralizationGap(own, 0.0)
    low, high = 0.0, _STEEPEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falls_short(middle) else (low, middle)
    return GeneralizationGap(own, high)


def _own_confidence(found: Outputs, auxiliary: Auxiliary, seed: int) -> tuple[Tensor, Tensor]:
    """p_y and whether the image is classified correctly, both (A,) in the order of the images."""
    logits = torch.empty(found.logits.shape, dtype=torch.float64)
    logits[mixed_order(len(logits), seed)] = found.logits.double().cpu()
    own = torch.softmax(logits, 1).gather(1, auxiliary.labels[:, None])[:, 0].clamp_min(_LEAST)
    return own, (logits.argmax(1) == auxiliary.labels).double()
