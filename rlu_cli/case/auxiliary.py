"""The server's labelled images: read, checked against the output layer, converted to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlu_cli.datasets import LabelledImages, read_images, take
from rlu_cli.errors import InputError, printable
from rlu_cli.types import Auxiliary

NOISE = "none"
NOISE_IMAGES = 100
DUMMIES_EACH = 10  # dummy images per label
FEWEST = 2  # images per class: a covariance needs two


def load_auxiliary(
    path: Path,
    *,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    size: int | None = None,
    split: str | None = None,
    per_class: int | None = None,
    seed: int = 0,
    strict: bool = False,
) -> Auxiliary:
    """Read auxiliary images and check that they cover every class of the output layer.

    classes      N of the output layer; None if unknown
    class_names  classes in the order of the output layer; None for the order of the images
    channels     input channels of the model, 1 or 3
    size         edge length in pixels to resize to; None for no resizing
    split        split of the data set to use; None for the default of `read_images`
    per_class    maximum number of images per class, drawn at random with `seed`; None for all
    strict       whether an unreadable image is an error

    Raises InputError E220 to E223.
    """
    data = read_images(path, size=size, split=split)
    _check_readable(data, path, strict=strict)
    if class_names is not None:
        data = _reordered(data, tuple(class_names), path)
    _check_classes(data, classes, path)
    index = _subset(data.labels, per_class, seed)
    data = take(data, index)
    return Auxiliary(
        images=_tensor(data.images, channels),
        labels=torch.from_numpy(data.labels),
        class_names=data.class_names,
        source=str(path),
        sha256=data.sha256,
        notes=_notes(data),
    )


def noise_auxiliary(
    class_names: Sequence[str], *, channels: int, size: int, images: int = NOISE_IMAGES, seed: int
) -> Auxiliary:
    """Uniform noise in place of images, shared by all classes (§4.3, untrained models only)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(images, channels, size, size, generator=generator)
    count = len(class_names)
    return Auxiliary(
        images=noise,
        labels=torch.full((images,), -1),
        class_names=tuple(class_names),
        source=NOISE,
        sha256="",
        notes=(f"no auxiliary images: {images} noise images are used for all {count} classes",),
    )


def dummy_auxiliary(auxiliary: Auxiliary, seed: int) -> Auxiliary:
    """Images without content, of the same shape as the real ones: 0 black, 1 white, 2 random."""
    shape = (DUMMIES_EACH, *auxiliary.images.shape[1:])
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return Auxiliary(
        images=torch.cat([torch.zeros(shape), torch.ones(shape), noise]),
        labels=torch.arange(3).repeat_interleave(DUMMIES_EACH),
        class_names=("black", "white", "random"),
        source="dummy images",
        sha256="",
    )


def is_noise(auxiliary: Auxiliary) -> bool:
    return auxiliary.source == NOISE


def is_folder(auxiliary: Auxiliary) -> bool:
    """Whether the images come from a folder with one sub-folder a class."""
    return not is_noise(auxiliary) and Path(auxiliary.source).is_dir()


def _notes(data: LabelledImages) -> tuple[str, ...]:
    notes = []
    if data.split is not None:
        notes.append(f"auxiliary images: split {printable(data.split)!r}")
    if data.skipped:
        notes.append(f"skipped {len(data.skipped)} unreadable files: {_first(data.skipped)}")
    return tuple(notes)


def _first(items: Sequence[str], limit: int = 3) -> str:
    more = f" ({len(items) - limit} more)" if len(items) > limit else ""
    return "; ".join(items[:limit]) + more


def _check_readable(data: LabelledImages, path: Path, *, strict: bool) -> None:
    if strict and data.skipped:
        raise InputError(
            "E223",
            f"{len(data.skipped)} files in {printable(path)} are not readable as images",
            facts=[("files", _first(data.skipped))],
            hint="repair or remove them, or omit --strict to skip them",
        )


def _reordered(data: LabelledImages, names: tuple[str, ...], path: Path) -> LabelledImages:
    """Renumber the labels to the class order of the output layer. Raises InputError E221."""
    unknown = [n for n in data.class_names if n not in names]
    missing = [n for n in names if n not in data.class_names]
    if unknown:
        raise InputError(
            "E221",
            f"{printable(path)} has classes that the model does not have: "
            + _first([printable(n) for n in unknown]),
            facts=[("model", _first([printable(n) for n in names], 10))]
            + ([("missing", _first([printable(n) for n in missing]))] if missing else []),
            hint="name the folders as in `classes`, or omit `classes` to use the folder order",
        )
    position = np.asarray([names.index(n) for n in data.class_names])
    return replace(data, labels=position[data.labels], class_names=names)


def _check_classes(data: LabelledImages, classes: int | None, path: Path) -> None:
    """Check one class per output and at least two images per class (E221, E222)."""
    found = len(data.class_names)
    if classes is not None and found != classes:
        raise InputError(
            "E221",
            f"{printable(path)} has {found} classes, the output layer has {classes}",
            facts=[("classes", _first([printable(n) for n in data.class_names], 12)), *_gap(data)],
            hint="give one folder of images per class of the model, in its class order "
            "(or another output layer with --layer)",
        )
    counts = np.bincount(data.labels, minlength=found)
    short = [f"{printable(data.class_names[n])} ({counts[n]})" for n in np.flatnonzero(counts < 2)]
    if short:
        skipped = f"; {len(data.skipped)} files could not be read" if data.skipped else ""
        raise InputError(
            "E222",
            f"fewer than {FEWEST} images in {printable(path)} for: {_first(short, 8)}{skipped}",
            why="the covariance of a class's logits needs at least two images",
            hint="add images to these classes; 5 per class suffice, 100 are better",
        )


def _gap(data: LabelledImages) -> list[tuple[str, str]]:
    """The numbers missing from numbered class folders, as a fact for the error."""
    if not all(name.isdecimal() for name in data.class_names):
        return []
    numbers = {int(name) for name in data.class_names}
    missing = sorted(set(range(min(numbers), max(numbers) + 1)) - numbers)
    return [("missing", _first([str(n) for n in missing], 12))] if missing else []


def _subset(labels: NDArray[np.int64], per_class: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of at most `per_class` images of each class, drawn at random with `seed`."""
    if per_class is None:
        return np.arange(len(labels))
    generator = np.random.default_rng(seed)
    chosen = [
        np.sort(generator.permutation(np.flatnonzero(labels == n))[:per_class])
        for n in np.unique(labels)
    ]
    return np.concatenate(chosen)


def _tensor(images: NDArray[np.generic], channels: int) -> Tensor:
    """Convert (A, H, W, C), uint8 or float, to (A, channels, H, W) float32 in 0…1."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    tensor = tensor.float() / 255 if images.dtype == np.uint8 else tensor.float()
    if tensor.shape[1] == channels:
        return tensor.contiguous()
    if channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601 luma
        return (tensor * weights).sum(1, keepdim=True)
    return tensor.expand(-1, channels, -1, -1).contiguous()
