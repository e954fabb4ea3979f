"""The generalisation gap: the client's images were trained on, the server's were not.

A server is usually told how well the global model has learned its training images. Auxiliary images
weighted by p_y^β, β such that they look as well learned, stand in for those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlu_cli.evidence.forward import ForwardConfig, mixed_order, outputs
from rlu_cli.types import Auxiliary, Checkpoint, Outputs

_STEEPEST = 64.0  # exponent β of p_y^β, beyond which a class is one image
_HALVINGS = 40
_LEAST = 1e-6  # of a probability, before it is raised to a power


@dataclass(frozen=True)
class GeneralizationGap:
    """How auxiliary images are made to look as well learned as training images.

    own       (A,) p_y of every image under the global model, in the images' own order
    exponent  β ≥ 0; 0 where they look as well learned as told already
    """

    own: Tensor
    exponent: float

    @property
    def likeness(self) -> Tensor | None:
        """p_y^β (A,), how likely each image is to be drawn within its class; None: all alike."""
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
    """The β ≥ 0 at which images weighted by p_y^β look as well learned as told; None if not told.

    accuracy  training accuracy of the global model, in evaluation mode
    loss      its mean cross-entropy on training data; not looked at where the accuracy is told
    """
    if accuracy is None and loss is None:
        return None
    seen = outputs(
        model, checkpoint.state, auxiliary, replace(config, training=False), checkpoint.path
    )
    own, right = _own_confidence(seen, auxiliary, config.seed)

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


def _own_confidence(seen: Outputs, auxiliary: Auxiliary, seed: int) -> tuple[Tensor, Tensor]:
    """p_y and whether the image is classified right, both (A,) in the images' own order."""
    logits = torch.empty(seen.logits.shape, dtype=torch.float64)
    logits[mixed_order(len(logits), seed)] = seen.logits.double().cpu()
    own = torch.softmax(logits, 1).gather(1, auxiliary.labels[:, None])[:, 0].clamp_min(_LEAST)
    return own, (logits.argmax(1) == auxiliary.labels).double()
