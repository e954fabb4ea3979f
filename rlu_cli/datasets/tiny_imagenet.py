"""Tiny-ImageNet as published: classes listed in `wnids.txt`, `val` labelled by a text file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from rlu_cli.datasets.folder import read_listed
from rlu_cli.datasets.labelled import LabelledImages, choose_split
from rlu_cli.errors import InputError, printable

FOLDER = "tiny-imagenet-200"
CLASSES = "wnids.txt"
ANNOTATIONS = "val_annotations.txt"
MAX_TEXT_BYTES = 2**24
_WNID = re.compile(r"n\d{8}")


def recognises(path: Path) -> bool:
    return _home(path) is not None


def read(path: Path, *, size: int | None = None, split: str | None = None) -> LabelledImages:
    """Read one split, val unless another is named, of the data set that `path` is or holds.

    The classes are the WordNet ids in alphabetical order, the order of a folder per class. `val`
    may be as published or already sorted into class folders; `test` has no labels.
    Raises InputError E220 when a list does not fit, E201 or E205 when it cannot be read.
    """
    home = _home(path) or path
    there = tuple(name for name in ("val", "train") if os.path.isdir(home / name))
    taken = choose_split(there, split, str(path)) or there[0]
    wnids = _classes(home / CLASSES)
    annotated = taken == "val" and os.path.isdir(home / "val" / "images")
    listed = _annotated(home / "val", wnids) if annotated else _sorted(home / taken, wnids)
    return read_listed(listed, root=home, class_names=wnids, size=size, split=taken)


def _home(path: Path) -> Path | None:
    for home in (path, path / FOLDER):
        if os.path.isfile(home / CLASSES) and any(
            os.path.isdir(home / name) for name in ("train", "val")
        ):
            return home
    return None


def _lines(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(
                "E205",
                f"refused {printable(file)}: over {MAX_TEXT_BYTES:,} bytes",
                hint="unpack the data set's archive again; no list in it is that large",
            )
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as problem:
        raise InputError(
            "E201",
            f"cannot read {printable(file)}",
            why=printable(problem.strerror or problem),
            hint="check its permissions",
        ) from problem
    return [line for line in lines if line.strip()]


def _bad(file: Path, why: str) -> InputError:
    return InputError(
        "E220",
        f"cannot use {printable(file)}: {why}",
        hint="unpack the data set's archive again, or give one sub-folder of images per class",
    )


def _classes(file: Path) -> tuple[str, ...]:
    wnids = [line.strip() for line in _lines(file)]
    odd = next((wnid for wnid in wnids if not _WNID.fullmatch(wnid)), None)
    if odd is not None:
        raise _bad(file, f"{printable(odd, 40)!r} is no WordNet id")
    if not wnids or len(set(wnids)) != len(wnids):
        raise _bad(file, "it lists no class, or one twice")
    return tuple(sorted(wnids))


def _sorted(folder: Path, wnids: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Files below folder/WNID; in `train` they are one level deeper, beside lists of boxes."""
    return [
        (file, label)
        for label, wnid in enumerate(wnids)
        for file in sorted((folder / wnid).rglob("*"))
        if os.path.isfile(file) and not file.name.startswith(".") and file.suffix != ".txt"
    ]


def _annotated(folder: Path, wnids: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Files of folder/images, each with the class its line names: file, WNID, box."""
    index = {wnid: label for label, wnid in enumerate(wnids)}
    listed = []
    for line in _lines(folder / ANNOTATIONS):
        name, wnid = (*line.split("\t"), "", "")[:2]
        if Path(name).name != name or wnid not in index:  # nothing outside the folder is read
            raise _bad(folder / ANNOTATIONS, f"no file and class in: {printable(line, 60)}")
        listed.append((folder / "images" / name, index[wnid]))
    return listed
