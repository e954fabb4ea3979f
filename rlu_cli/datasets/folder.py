"""A folder with one sub-folder of images per class, with or without split folders above them."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rlu_cli.datasets.labelled import (
    LabelledImages,
    choose_split,
    files_sha256,
    in_content_order,
    resized,
)
from rlu_cli.errors import InputError, printable
from rlu_cli.regular_files import read_regular

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF")
SPLITS = ("train", "test", "val", "valid", "validation")
MAX_PIXELS = 50_000_000  # of one image, and of all beyond those that their bytes allow
PIXELS_PER_BYTE = 50  # photographs have ten, drawings more
MAX_FILE_BYTES = 200_000_000


def recognises(path: Path) -> bool:
    return path.is_dir()


def read(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read every image of every class below `path`.

    A file that is not an image of an allowed format, or has too many pixels, is skipped and named.
    Raises InputError E220 when there is no class folder or no image, or when sizes differ and
    `size` is None.
    """
    root, taken = _split_root(path, split)
    names = class_order(p.name for p in _visible(root) if p.is_dir())
    if not names:
        raise InputError(
            "E220",
            f"no class folders in {printable(root)}",
            hint="put each class's images into a sub-folder named after the class",
        )
    listed = [(file, label) for label, name in enumerate(names) for file in _files(root / name)]
    return read_listed(listed, root=path, class_names=names, size=size, split=taken)


def read_listed(
    listed: Sequence[tuple[Path, int]],
    *,
    root: Path,
    class_names: tuple[str, ...],
    size: int | None,
    split: str | None,
) -> LabelledImages:
    """Read image files below `root`, each with its class.

    A file that is not an image of an allowed format, or has too many pixels by itself or with those
    before it, is skipped and named. Raises InputError E220 when none is left, or when sizes differ
    and `size` is None.
    """
    images, labels, digests, skipped = [], [], {}, []
    allowed = MAX_PIXELS
    for file, label in listed:
        relative = file.relative_to(root).as_posix()
        try:
            data = read_regular(file, MAX_FILE_BYTES)
            allowed += PIXELS_PER_BYTE * len(data)
            pixels = _pixels(data, allowed)
            allowed -= pixels.shape[0] * pixels.shape[1]
            images.append(resized(pixels, size))
        except (OSError, ValueError, SyntaxError, EOFError) as problem:
            skipped.append(f"{printable(relative)}: {printable(problem)}")
            continue
        labels.append(label)
        digests[relative] = hashlib.sha256(data).hexdigest()
    if not images:
        raise InputError(
            "E220",
            f"no readable image in {printable(root)} ({len(skipped)} files could not be read)",
            hint=f"allowed formats: {', '.join(FORMATS)}",
        )
    return in_content_order(
        LabelledImages(
            images=_stacked(images, root),
            labels=np.asarray(labels, dtype=np.int64),
            class_names=class_names,
            sha256=files_sha256(digests),
            split=split,
            skipped=tuple(skipped),
        )
    )


def class_order(names: Any) -> tuple[str, ...]:
    """Folder names as class indices: all-numeric names by number, others by character."""
    listed = list(names)
    if listed and all(re.fullmatch(r"\d{1,18}", name) for name in listed):
        return tuple(sorted(listed, key=lambda name: (int(name), name)))
    return tuple(sorted(listed))


def _visible(folder: Path) -> list[Path]:
    try:
        return [p for p in folder.iterdir() if not p.name.startswith((".", "__"))]
    except OSError as problem:
        raise InputError(
            "E201",
            f"cannot read the folder {printable(folder)}",
            why=printable(problem.strerror or problem),
            hint="check its permissions",
        ) from problem


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _split_root(path: Path, split: str | None) -> tuple[Path, str | None]:
    """The folder that holds the class folders, and the split it stands for."""
    folders = tuple(sorted(p.name for p in _visible(path) if p.is_dir()))
    splits = folders if folders and set(folders) <= set(SPLITS) else ()
    chosen = choose_split(splits, split, str(path))
    if splits and chosen is None:
        chosen = next((s for s in ("valid", "validation", "train") if s in splits), None)
    return (path / chosen, chosen) if chosen else (path, None)


def _pixels(data: bytes, allowed: int) -> NDArray[np.uint8]:
    """Decode to (H, W, C) uint8: C = 1 for greyscale, else 3.

    allowed  pixels that all images together may still have
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd palettes and the like: the image is read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"over {MAX_PIXELS:,} pixels")
                if image.width * image.height > allowed:
                    raise ValueError("the images have far more pixels than bytes")
                if image.mode.startswith("I"):
                    pixels = _high_byte(image)
                else:
                    grey = image.mode in ("1", "L", "LA")
                    pixels = np.asarray(image.convert("L" if grey else "RGB"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
            raise ValueError(f"over {MAX_PIXELS:,} pixels") from problem
        except UnidentifiedImageError as problem:
            raise ValueError("not an image of an allowed format") from problem
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _high_byte(image: Image.Image) -> NDArray[np.uint8]:
    """16-bit greyscale in 8 bits; Pillow's own conversion clips at 255 instead."""
    return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)


def _stacked(images: list[NDArray[np.uint8]], root: Path) -> NDArray[np.uint8]:
    """All images in one array, greyscale ones repeated where the others have colour."""
    channels = max(image.shape[2] for image in images)
    shapes = sorted({image.shape[:2] for image in images})
    if len(shapes) > 1:
        listed = ", ".join(f"{w}×{h}" for h, w in shapes[:4])
        raise InputError(
            "E220",
            f"images in {printable(root)} differ in size ({listed}{' …' * (len(shapes) > 4)})",
            hint="resize them to the model's input size: --image-size N",
        )
    return np.stack([np.repeat(i, channels // i.shape[2], axis=2) for i in images])
