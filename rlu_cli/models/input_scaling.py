"""Normalisation of pixels in 0…1 before they enter the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlu_cli.errors import UsageError, printable

AUTO = "auto"
AUX = "aux"
_LEAST_STD = 1e-3  # of a channel of the auxiliary images, in pixels of 0…1


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


# Mean and standard deviation of the training images, as commonly given for each data set.
PRESETS = {
    "none": Normalisation((0.0,), (1.0,)),
    "half": Normalisation((0.5,), (0.5,)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": Normalisation((0.1307,), (0.3081,)),
}


def of_images(images: Tensor) -> str:
    """MEAN/STD per channel of the images themselves, what `aux` stands for.

    images  (A, C, H, W) in 0…1; anything but one or three channels is taken together
    """
    channels = images.shape[1]
    flat = images.double().transpose(0, 1).flatten(1)
    rows = flat if channels in (1, 3) else flat.reshape(1, -1)
    std, mean = torch.std_mean(rows, dim=1, correction=0)
    parts = (mean.tolist(), std.clamp_min(_LEAST_STD).tolist())
    return "/".join(",".join(f"{value:.4f}" for value in part) for part in parts)


def parse_normalisation(text: str) -> Normalisation:
    """A preset's name, or MEAN/STD such as `0.5,0.5,0.5/0.5,0.5,0.5` or `0.13/0.31`.

    Raises UsageError E101, also for `aux`, which only auxiliary images give numbers to.
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
    forms = "|".join((AUTO, *PRESETS, AUX, "MEAN/STD"))
    return UsageError(
        "E101",
        f"unknown scaling {printable(text)!r}",
        hint=f"--normalize {forms}, as in 0.5,0.5,0.5/0.5,0.5,0.5",
    )


def _per_channel(values: tuple[float, ...], channels: int) -> Tensor:
    """Values as (1, C, 1, 1); three values for a one-channel model become their mean."""
    tensor = torch.tensor(values)
    if len(values) not in (1, channels):
        tensor = tensor.mean(0, keepdim=True)
    return tensor.view(1, -1, 1, 1)
