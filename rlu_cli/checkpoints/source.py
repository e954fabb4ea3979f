"""An open checkpoint file, the interface of its readers, and the errors all formats share."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rlu_cli.errors import InputError, printable

_CHUNK = 1 << 20
_SHOWN = 4


@dataclass(frozen=True)
class Source:
    """One open file.

    size       of the file, in bytes
    max_bytes  limit on the file and on the sum of its tensors, in bytes
    """

    path: Path
    file: BinaryIO
    size: int
    max_bytes: int

    @property
    def name(self) -> str:
        return printable(self.path)

    def read(self, offset: int, count: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(count)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        self.file.seek(0)
        while chunk := self.file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()


@dataclass(frozen=True)
class Content:
    """What a file holds.

    value    made of dicts, lists, plain values, tensors, and descriptions of them to be read
    objects  the classes and functions of objects in it, which were not built
    """

    value: Any
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """How one file format is recognised and read.

    matches  (first bytes of the file) → whether it is this format
    read     Source → what is in the file
    """

    matches: Callable[[bytes], bool]
    read: Callable[[Source], Content]


@contextmanager
def open_source(path: Path, max_bytes: int) -> Iterator[Source]:
    """The regular file at `path`, open for reading; E201 if there is none, E205 if too large."""
    try:
        # Before opening: opening a pipe would wait for a writer.
        if not stat.S_ISREG(_mode(path)):
            raise unreadable(path, "not a regular file")
        with path.open("rb") as file:
            source = Source(path, file, file.seek(0, 2), max_bytes)
            if source.size > max_bytes:
                raise too_large(source, f"the file has {source.size:,} bytes")
            yield source
    except OSError as error:
        raise unreadable(path, error.strerror or type(error).__name__) from error


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder; E201 for what no path can be."""
    try:
        return stat.S_ISDIR(_mode(path))
    except OSError as error:
        raise unreadable(path, error.strerror or type(error).__name__) from error


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except ValueError as error:  # a null byte in the path
        raise unreadable(path, printable(error)) from error


def unreadable(path: Path, why: str) -> InputError:
    return InputError(
        "E201",
        f"cannot read {printable(path)}: {why}",
        hint="give the path of a checkpoint file that you may read",
    )


def corrupt(source: Source, why: str) -> InputError:
    return InputError(
        "E202",
        f"cannot read {source.name}: truncated or corrupt",
        why=why,
        hint="copy the file again and compare its SHA-256 with that on the machine that wrote it",
    )


def malformed(source: Source, why: str) -> InputError:
    return InputError(
        "E204",
        f"refused to load {source.name}: no program that saves checkpoints writes such a file",
        why=why,
        hint="treat the file as hostile; ask for it again as safetensors",
    )


def too_large(source: Source, why: str) -> InputError:
    return InputError(
        "E205",
        f"refused to load {source.name}: over the size limit of {source.max_bytes:,} bytes",
        why=why,
        hint="raise the limit with --max-bytes if the file is meant to be this large",
    )


def not_plain(source: Source, what: str, fix: str) -> InputError:
    return InputError("E206", f"refused to load {source.name}: {what}", hint=fix)


def holds_code(source: Source, what: str, *, it: str = "it", needs: str = "") -> InputError:
    return InputError(
        "E203",
        f"refused to load {source.name}: {what}",
        facts=[("needs", needs)],
        why=f"loading {it} would run code from the file",
        hint="on the machine that trained it: "
        f'torch.save(model.state_dict(), "{printable(source.path.name)}")',
    )


def cause(error: Exception) -> str:
    """One line, without torch's advice to load the file unsafely."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    return printable(lines[0].strip() if lines else type(error).__name__)


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name, 120) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return shown if more <= 0 else f"{shown}  ({more} more)"
