"""The global model tried on a sample of the images, in evaluation mode."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlu_cli.errors import InputError
from rlu_cli.evidence.forward import ForwardConfig, outputs
from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.types import Auxiliary, Checkpoint

_IMAGES = 200  # images that each way of feeding them is tried on


@dataclass(frozen=True)
class Trial:
    """The global model on a sample of the images, fed in one way.

    right   (A,) bool, whether each image is classified right
    sure    mean probability of the class it calls
    spread  entropy of the classes it calls over that of all classes alike, 0 to 1
    length  of the mean embedding
    """

    right: Tensor
    sure: float
    spread: float
    length: float

    @property
    def accuracy(self) -> float:
        return float(self.right.double().mean())


def sampled(auxiliary: Auxiliary) -> Auxiliary:
    """An even sample of the images."""
    count = len(auxiliary.labels)
    index = torch.linspace(0, count - 1, min(_IMAGES, count)).long()
    return replace(auxiliary, images=auxiliary.images[index], labels=auxiliary.labels[index])


def try_images(
    model: nn.Module,
    checkpoint: Checkpoint,
    config: ForwardConfig,
    sample: Auxiliary,
    normalise: Normalisation,
) -> Trial | None:
    """The model in evaluation mode on the images; None where it cannot take them."""
    config = replace(config, normalise=normalise, training=False)
    try:
        found = outputs(model, checkpoint.state, sample, config, checkpoint.path)
    except InputError:
        return None
    order = found.labels.argsort(stable=True)  # the same images in every trial
    right = (found.logits.argmax(1) == found.labels)[order].cpu()
    sure = float(found.probabilities.max(1).values.mean())
    called = torch.bincount(found.logits.argmax(1).cpu(), minlength=sample.classes).double()
    shares = called / called.sum()
    spread = float(-torch.xlogy(shares, shares).sum()) / math.log(sample.classes)
    return Trial(right, sure, spread, float(found.embeddings.double().mean(0).norm()))
