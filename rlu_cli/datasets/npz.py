"""An `.npz` archive: `images` (n, H, W, 3) or (n, H, W), `labels`, optional names and splits."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlu_cli.datasets.labelled import LabelledImages, choose_split, in_content_order, resized
from rlu_cli.errors import InputError, printable
from rlu_cli.hashing import file_sha256

MAX_BYTES = 2**34  # unpacked
MAX_RATIO = 200  # unpacked to packed, for one array over a megabyte
MAX_CLASSES = 1_000_000
_UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    RuntimeError,  # encrypted, or a compression that this Python lacks
    MemoryError,  # a header that claims more than the file holds
    zipfile.BadZipFile,
    zlib.error,
)


def recognises(path: Path) -> bool:
    return path.is_file() and zipfile.is_zipfile(path)


def read(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read an archive with `images` uint8 or float in 0…1 and `labels`.

    `class_names` and `split` are optional. Never unpickles. Raises InputError E220 with the reason
    when the arrays are inconsistent, E204 when the archive would unpack to far more than its size.
    """
    _refuse_bombs(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = ("images", "labels", "class_names", "split")
            arrays = {name: archive[name] for name in wanted if name in archive.files}
    except _UNREADABLE as problem:
        raise _bad(path, printable(problem)) from problem
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # numpy returns other members as bytes
            raise _bad(path, f"`{name}` is not an array")
    images, labels = _images(path, arrays), _labels(path, arrays)
    names = _names(path, arrays, labels)
    taken, keep = _split(path, arrays, split, len(images))
    chosen = [resized(image, size) for image in images[keep]]
    return in_content_order(
        LabelledImages(
            images=np.stack(chosen),
            labels=labels[keep],
            class_names=names,
            sha256=file_sha256(path),
            split=taken,
        )
    )


def _bad(path: Path, why: str) -> InputError:
    return InputError(
        "E220",
        f"cannot use {printable(path)}: {why}",
        hint="needed: `images` (n×H×W×3 or n×H×W, uint8 or float in 0…1) and `labels` (n whole "
        "numbers from 0); optional: `class_names`, `split`",
    )


def _refuse_bombs(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except _UNREADABLE as problem:
        raise _bad(path, printable(problem)) from problem
    total = sum(e.file_size for e in entries)
    steep = [
        e for e in entries if e.file_size > 2**20 and e.file_size > MAX_RATIO * e.compress_size
    ]
    if total > MAX_BYTES or steep:
        raise InputError(
            "E204",
            f"refused {printable(path)}: it would unpack to {total:,} bytes",
            why="an archive that unpacks to far more than its own size can exhaust the memory",
            hint="save the arrays with numpy.savez, uncompressed",
        )


def _images(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    images = arrays.get("images")
    if images is None:
        raise _bad(path, "it has no `images`")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise _bad(path, f"`images` has shape {images.shape}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise _bad(path, f"`images` has type {images.dtype}")
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise _bad(path, "`images` are floats outside 0…1")
    return images.astype(np.float32)


def _labels(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    labels = arrays.get("labels")
    if labels is None:
        raise _bad(path, "it has no `labels`")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(arrays["images"]):
        raise _bad(path, f"`labels` has shape {labels.shape} and type {labels.dtype}")
    if labels.min() < 0:
        raise _bad(path, "a label is negative")
    if labels.max() >= MAX_CLASSES:
        raise _bad(path, f"a label is {int(labels.max()):,}")
    return labels.astype(np.int64)


def _names(
    path: Path, arrays: dict[str, NDArray[Any]], labels: NDArray[np.int64]
) -> tuple[str, ...]:
    count = int(labels.max()) + 1
    if "class_names" not in arrays:
        return tuple(str(n) for n in range(count))
    names = _texts(path, "class_names", arrays["class_names"])
    if len(names) < count:
        raise _bad(path, f"{len(names)} class names for labels up to {count - 1}")
    return names


def _texts(path: Path, name: str, array: NDArray[Any]) -> tuple[str, ...]:
    """The entries of a column as text, bytes read as UTF-8."""
    if array.ndim != 1:
        raise _bad(path, f"`{name}` has shape {array.shape}")
    listed = array.tolist()
    return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in listed)


def _split(
    path: Path, arrays: dict[str, NDArray[Any]], wanted: str | None, count: int
) -> tuple[str | None, NDArray[np.bool_]]:
    """The split read, and the mask (n,) of its images."""
    column = arrays.get("split")
    if column is not None and column.shape != (count,):
        raise _bad(path, f"`split` has shape {column.shape} for {count} images")
    column = None if column is None else np.asarray(_texts(path, "split", column))
    available = () if column is None else tuple(sorted(set(column.tolist())))
    chosen = choose_split(available, wanted, str(path))
    if column is None or chosen is None:
        return None, np.ones(count, dtype=bool)
    return chosen, column == chosen
