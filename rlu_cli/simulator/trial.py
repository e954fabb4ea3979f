"""Trial forward pass, so that a model for other images or classes fails before training."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlu_cli.errors import InputError, RluError, printable
from rlu_cli.models.input_scaling import Normalisation
from rlu_cli.simulator.client import to_pixels


def check_fit(
    model: nn.Module,
    normalise: Normalisation,
    images: NDArray[np.uint8],
    classes: int,
    smallest_batch: int,
) -> None:
    """Raises InputError E215 for a model that cannot classify the images, E240 for one that cannot
    train on a batch of one image although a round has such a batch.

    images  (n, H, H, 3) uint8, two or more
    """
    pixels = normalise(to_pixels(images[:2], model))
    _check_classes(model.eval(), pixels, classes)
    if smallest_batch == 1:
        _check_single(copy.deepcopy(model).train(), pixels[:1])


def _check_classes(model: nn.Module, pixels: torch.Tensor, classes: int) -> None:
    wanted = (len(pixels), classes)
    try:
        with torch.no_grad():
            shape = tuple(model(pixels).shape)
        why = "" if shape == wanted else f"it returns {shape}, not (images, classes) = {wanted}"
    except RluError:
        raise
    except Exception as error:  # whatever the user's own code raises
        why = printable(error)
    if why:
        size = pixels.shape[-1]
        raise InputError(
            "E215",
            f"the model cannot classify {size}x{size} RGB images into {classes} classes",
            why=why,
            hint="give its arguments with --model-arg, or resize with --image-size",
        )


def _check_single(model: nn.Module, pixels: torch.Tensor) -> None:
    try:
        with torch.no_grad():
            model(pixels)
    except RluError:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise InputError(
            "E240",
            "some batches hold one image, and the model cannot train on one",
            why=printable(error),
            hint="leave them out with --drop-last, or change --samples or --batch-size",
        ) from None
