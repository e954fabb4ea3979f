"""Means over what a model makes of images: confidence, its average, sums of the last gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.types import Outputs

_LEAST = 1e-6  # of a probability, before it is raised to a power


def class_means(
    values: Tensor, labels: Tensor, classes: int, importance: Tensor | None = None
) -> Tensor:
    """Mean row of each class: (A, k) → (N, k); a class without images has a row of zeros.

    importance  (A,) weight of each image in its class, summing to 1 there; None for even weights
    """
    member = torch.nn.functional.one_hot(labels.cpu(), classes).to(values)  # (A, N)
    if importance is not None:
        return (member * importance.to(values)[:, None]).T @ values
    return (member.T @ values) / member.sum(0).clamp_min(1)[:, None]


def tilted(outputs: Outputs, exponent: float) -> Tensor:
    """Weight of each image in its class, (A,) ∝ p_y^β, summing to 1 within every class.

    With β > 0 images that the model is sure of count more, as those do that it was trained on;
    β = 0 weighs all alike.
    """
    labels = outputs.labels.cpu()
    own = outputs.probabilities.gather(1, labels[:, None])[:, 0].clamp_min(_LEAST) ** exponent
    sums = torch.zeros(outputs.logits.shape[1], dtype=torch.float64).index_add_(0, labels, own)
    return own / sums[labels]


def class_confidence(outputs: Outputs, importance: Tensor | None = None) -> Tensor:
    """S[n, j]: mean softmax of class j on the images of true class n, (N, N), diagonal kept.

    Over the images themselves, without the normal distribution that Eq. 8 draws from.

    importance  as `class_means` has it
    """
    classes = outputs.logits.shape[1]
    return class_means(outputs.probabilities, outputs.labels, classes, importance)


def embedding_sums(outputs: Outputs) -> Tensor:
    """Σ_l e_l of every image, (A,) float64, on the CPU.

    Noise stands for every class in turn: its logits are repeated, its embeddings kept once.
    """
    sums = outputs.embeddings.double().cpu().sum(1)
    return sums.repeat(len(outputs.logits) // len(sums))


def class_gradient_sums(outputs: Outputs) -> Tensor:
    """Row sums of ∇W for a batch of one class alone: (N, N), entry [n, j] = Σ_l ∇W[j, l].

    ∇W = mean over the batch of (p - e_n) eᵀ, so that the sum is that of (p_j - [j = n]) Σ_l e_l.
    """
    classes = outputs.logits.shape[1]
    sums = embedding_sums(outputs)[:, None]
    confident = class_means(outputs.probabilities * sums, outputs.labels, classes)
    return confident - torch.diag(class_means(sums, outputs.labels, classes)[:, 0])
