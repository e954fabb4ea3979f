"""Normalisation of pixels in 0…1 before they enter the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.errors import UsageError, printable

AUTO = "auto"


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std per channel; a single value applies to all channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """images (A, C, H, W) in 0…1 → the same shape, scaled."""
        channels = images.shape[1]
        mean, std = (_per_channel(values, channels) for values in (self.mean, self.std))
        return (images - mean.to(images)) / std.to(images)


PRESETS = {
    "none": Normalisation((0.0,), (1.0,)),
    "half": Normalisation((0.5,), (0.5,)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def parse_normalisation(text: str) -> Normalisation:
    """A preset's name, or MEAN/STD such as `0.5,0.5,0.5/0.5,0.5,0.5` or `0.13/0.31`.

    Raises UsageError E101.
    """
    if text in PRESETS:
        return PRESETS[text]
    parts = text.split("/")
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in parts)
    except ValueError:
        raise _bad(text) from None
    finite = all(math.isfinite(v) for v in (*mean, *std))
    if not finite or len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0:
        raise _bad(text)
    return Normalisation(mean, std)


def _bad(text: str) -> UsageError:
    return UsageError(
        "E101",
        f"unknown scaling {printable(text)!r}",
        hint=f"--normalize {AUTO}|{'|'.join(PRESETS)}|MEAN/STD, as in 0.5,0.5,0.5/0.5,0.5,0.5",
    )


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    """Values as (1, C, 1, 1); three values for a one-channel model become their mean."""
    tensor = torch.tensor(values)
    if len(values) not in (1, channels):
        tensor = tensor.mean(0, keepdim=True)
    return tensor.view(1, -1, 1, 1)
