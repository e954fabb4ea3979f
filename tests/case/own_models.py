"""Small models whose logits do not come from the last linear layer of the file, and their clients.

The text is also the file that a user names with --model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def body(width: int = 64) -> nn.Sequential:
    """Features (B, width, 8, 8) of images (B, 3, 32, 32)."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, width, 3, 2, 1), nn.ReLU()
    )


def pooled(features: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(features, 2).flatten(1)


class ScoreFirst(nn.Module):
    """The output layer is defined, and saved, before the layers that run before it."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.verdict = nn.Linear(24, num_classes)
        self.body = body()
        self.fc = nn.Linear(256, 24)
        self.probe = nn.Linear(24, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.fc(pooled(self.body(images))).relu()
        self.probe(hidden)  # looked at by nobody
        logits: Tensor = self.verdict(hidden)
        return logits


class LogProbabilities(ScoreFirst):
    """Returns the logarithm of the softmax."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        del self.probe

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.fc(pooled(self.body(images))).relu()
        return nn.functional.log_softmax(self.verdict(hidden), 1)


class Convolutional(nn.Module):
    """A 1×1 convolution, pooled."""

    rectified = False

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = body()
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Conv2d(64, num_classes, 1))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.classifier(self.features(images))
        return (maps.relu() if self.rectified else maps).mean((2, 3))


class Squeezed(Convolutional):
    """The same with a ReLU before the pooling, as SqueezeNet has it."""

    rectified = True


class Distilled(nn.Module):
    """Two output layers on two embeddings; the mean of both is returned."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = body()
        self.norm = nn.LayerNorm(256)
        self.head = nn.Linear(256, num_classes)
        self.head_dist = nn.Linear(256, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = pooled(self.body(images))
        mean: Tensor = (self.head(features) + self.head_dist(self.norm(features))) / 2
        return mean


class Auxiliary(nn.Module):
    """An auxiliary classifier, which trains but gives no logits: GoogLeNet, Inception."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = body()
        self.head = nn.Linear(64 * 4, num_classes)
        self.head_aux = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.body(images)
        logits: Tensor = self.head(pooled(features))
        return (logits, self.head_aux(features.mean((2, 3)))) if self.training else logits


class Tied(nn.Module):
    """One layer under two names."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.body = body()
        self.decode = nn.Linear(256, num_classes)
        self.project = self.decode

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decode(pooled(self.body(images)))
        return logits


def anything(**given: int) -> nn.Module:
    """A factory that hands its arguments on."""
    return ScoreFirst(**given)


def thousand() -> nn.Module:
    """A factory that knows only its own number of classes."""
    return ScoreFirst(1000)


def loss_of(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; of several outputs, .3 times that of the others is added."""
    returned = model(images)
    if isinstance(returned, Tensor):
        return nn.functional.cross_entropy(returned, labels)
    losses = [nn.functional.cross_entropy(logits, labels) for logits in returned]
    return losses[0] + 0.3 * torch.stack(losses[1:]).sum()
