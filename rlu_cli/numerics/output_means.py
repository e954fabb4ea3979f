"""Means of a model's outputs over images: confidence, embeddings, output-layer gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.types import Outputs

_LEAST = 1e-6  # of a probability before it is raised to a power


def class_means(
    values: Tensor, labels: Tensor, classes: int, importance: Tensor | None = None
) -> Tensor:
    """Mean of `values` over the images of each class, (A, k) → (N, k); 0 for a class with none.

    importance  (A,) weight of each image within its class, summing to 1 per class; None for uniform
    """
    member = torch.nn.functional.one_hot(labels.cpu(), classes).to(values)  # (A, N)
    if importance is not None:
        return (member * importance.to(values)[:, None]).T @ values
    return (member.T @ values) / member.sum(0).clamp_min(1)[:, None]


def tilted(outputs: Outputs, exponent: float) -> Tensor:
    """Weight of each image within its class, (A,) ∝ p_y^β, summing to 1 per class.

    exponent  β. With β > 0, images classified confidently weigh more, so that the weighted images
              resemble training images; β = 0 is uniform
    """
    labels = outputs.labels.cpu()
    own = outputs.probabilities.gather(1, labels[:, None])[:, 0].clamp_min(_LEAST) ** exponent
    sums = torch.zeros(outputs.logits.shape[1], dtype=torch.float64).index_add_(0, labels, own)
    return own / sums[labels]


def class_confidence(outputs: Outputs, importance: Tensor | None = None) -> Tensor:
    """S[n, j]: mean softmax of class j over the images of true class n, (N, N), diagonal kept.

    The mean over the images themselves, without the normal approximation of Eq. 8.

    importance  (A,) as in `class_means`
    """
    classes = outputs.logits.shape[1]
    return class_means(outputs.probabilities, outputs.labels, classes, importance)


def embedding_sums(outputs: Outputs) -> Tensor:
    """Σ_l e_l of every image, (A,) float64, on the CPU.

    Noise images stand for every class in turn: their logits are repeated once per class, their
    embeddings are stored once.
    """
    sums = outputs.embeddings.double().cpu().sum(1)
    return sums.repeat(len(outputs.logits) // len(sums))


def class_gradient_sums(outputs: Outputs) -> Tensor:
    """Row sums of ∇W for a batch of a single class: (N, N), entry [n, j] = Σ_l ∇W[j, l], class n.

    ∇W is the batch mean of (p - e_n) eᵀ, so entry [n, j] is the mean of (p_j - [j = n]) Σ_l e_l.
    """
    classes = outputs.logits.shape[1]
    sums = embedding_sums(outputs)[:, None]
    confident = class_means(outputs.probabilities * sums, outputs.labels, classes)
    return confident - torch.diag(class_means(sums, outputs.labels, classes)[:, 0])
