"""Means over what a model makes of images: confidence, its average, sums of the last gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from rlu_cli.types import Outputs


def probabilities(outputs: Outputs) -> Tensor:
    """Softmax of every image's logits, (A, N) float64, on the CPU."""
    return torch.softmax(outputs.logits.double().cpu(), 1)


def class_means(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean row of each class: (A, k) → (N, k); a class without images has a row of zeros."""
    member = torch.nn.functional.one_hot(labels.cpu(), classes).to(values)  # (A, N)
    return (member.T @ values) / member.sum(0).clamp_min(1)[:, None]


def class_confidence(outputs: Outputs) -> Tensor:
    """S[n, j]: mean softmax of class j on the images of true class n, (N, N), diagonal kept.

    Over the images themselves, without the normal distribution that Eq. 8 draws from.
    """
    return class_means(probabilities(outputs), outputs.labels, outputs.logits.shape[1])


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
    confident = class_means(probabilities(outputs) * sums, outputs.labels, classes)
    return confident - torch.diag(class_means(sums, outputs.labels, classes)[:, 0])
