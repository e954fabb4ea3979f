"""The loss that a client minimises on each batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def batch_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> Tensor:
    """Mean cross-entropy of a batch; with class weights Σ_i w_{y_i} ℓ_i / Σ_i w_{y_i}.

    logits         (B, N)
    targets        (B,)
    smoothing      ε of label smoothing
    class_weights  (N,) w; None for equal weights
    """
    weight = None
    if class_weights is not None:
        weight = torch.tensor(class_weights, dtype=logits.dtype, device=logits.device)
    return functional.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing)
