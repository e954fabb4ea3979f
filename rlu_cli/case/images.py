"""The auxiliary images of a case: read from disk, already loaded, or noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlu_cli.case.auxiliary import NOISE, load_auxiliary, noise_auxiliary
from rlu_cli.case.hypotheses import ModelHypothesis
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import InputError, UsageError
from rlu_cli.models import ARCHITECTURES, input_shape
from rlu_cli.types import Auxiliary, Checkpoint


def images_for(
    aux: str | Auxiliary,
    pair: CheckpointPair,
    hypothesis: ModelHypothesis,
    value: Callable[[str], Any],
    *,
    strict: bool,
) -> Auxiliary:
    """Images whose number of classes, channels and size fit the model.

    aux         path, "none" for noise, or images already loaded
    hypothesis  gives the architecture, which determines channels and usual image size
    value       maps the name of a setting to its value, None if it is missing
    strict      whether an unreadable image is an error

    Raises InputError E220 to E223, UsageError E102 for noise of unknown size.
    """
    classes = len(pair.heads[0].weight)
    if isinstance(aux, Auxiliary):
        return _fitting(aux, classes)
    channels, usual = _input_shape(pair.before, hypothesis, classes)
    size = value("image_size") or usual
    if size is None:
        hypothesis.build(pair.before, classes)  # E101 for a name that is not known
    if aux == NOISE:
        return _noise(classes, channels, size, value)
    return load_auxiliary(
        Path(aux),
        classes=classes,
        class_names=value("classes"),
        channels=channels,
        size=size,
        split=value("aux_split"),
        per_class=value("aux_per_class"),
        seed=value("seed"),
        strict=strict,
    )


def _noise(classes: int, channels: int, size: int | None, value: Callable[[str], Any]) -> Auxiliary:
    if size is None:
        raise UsageError(
            "E102",
            "missing setting: image_size, the size of the noise images",
            why="this model accepts images of any size",
            hint="give the client's image size with --image-size N",
        )
    names = value("classes") or [str(n) for n in range(classes)]
    if len(names) != classes:
        raise InputError(
            "E221",
            f"{len(names)} class names for an output layer of {classes}",
            hint="correct `classes`, or give another output layer with --layer",
        )
    return noise_auxiliary(names, channels=channels, size=size, seed=value("seed"))


def _fitting(auxiliary: Auxiliary, classes: int) -> Auxiliary:
    if auxiliary.classes == classes:
        return auxiliary
    raise InputError(
        "E221",
        f"the images have {auxiliary.classes} classes, the output layer has {classes}",
        hint="give images with one class per output of the model",
    )


def _input_shape(
    checkpoint: Checkpoint, hypothesis: ModelHypothesis, classes: int
) -> tuple[int, int | None]:
    known = hypothesis.model in ARCHITECTURES
    model = hypothesis.model if known else hypothesis.build(checkpoint, classes)
    return input_shape(model, checkpoint.state)
