"""Labelled images in memory, in an order independent of file names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlu_cli.errors import UsageError, printable

PREFERRED_SPLITS = ("test", "val")


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes.

    images       (n, H, W, C) uint8, or float32 in 0…1
    labels       (n,) int64
    class_names  position is the class index; a class may have no image
    sha256       of the file, or of a folder's sorted list of relative path and file hash
    split        the split read, or None if the source has none
    skipped      files that could not be read, each with the reason
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    sha256: str
    split: str | None = None
    skipped: tuple[str, ...] = ()


class Layout(Protocol):
    """A module that reads one layout of images on disk."""

    def recognises(self, path: Path) -> bool: ...

    def read(self, path: Path, *, size: int | None, split: str | None) -> LabelledImages: ...


def take(data: LabelledImages, index: NDArray[Any]) -> LabelledImages:
    """The images at `index`."""
    return replace(data, images=data.images[index], labels=data.labels[index])


def in_content_order(data: LabelledImages) -> LabelledImages:
    """Images sorted by class and then by content, so that renaming files changes nothing."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in data.images]
    order = sorted(range(len(digests)), key=lambda i: (int(data.labels[i]), digests[i]))
    return take(data, np.asarray(order, dtype=np.int64))


def files_sha256(digests: Mapping[str, str]) -> str:
    """One hash of a folder's files: of the sorted list of relative path and file hash."""
    listed = sorted(f"{relative}\0{digest}\n" for relative, digest in digests.items())
    return hashlib.sha256("".join(listed).encode("utf-8", "surrogateescape")).hexdigest()


def choose_split(available: tuple[str, ...], wanted: str | None, source: str) -> str | None:
    """The split to read: `wanted`, else test, else val, else None for all.

    Raises UsageError E101 when `wanted` is not available.
    """
    if wanted is None:
        return next((name for name in PREFERRED_SPLITS if name in available), None)
    if wanted not in available:
        listed = ", ".join(printable(name) for name in available) or "none"
        raise UsageError(
            "E101",
            f"{printable(source)} has no split {printable(wanted)!r}",
            hint=f"splits there: {listed}",
        )
    return wanted


def resized(image: NDArray[Any], size: int | None) -> NDArray[Any]:
    """One image (H, W, C) resized to (size, size, C) by area-aware bilinear interpolation."""
    if size is None or image.shape[:2] == (size, size):
        return image
    if image.dtype == np.uint8:
        return np.stack([_resized_plane(image[..., c], size) for c in range(image.shape[2])], -1)
    planes = [_resized_plane(image[..., c].astype(np.float32), size) for c in range(image.shape[2])]
    return np.stack(planes, -1)


def _resized_plane(plane: NDArray[Any], size: int) -> NDArray[Any]:
    return np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
