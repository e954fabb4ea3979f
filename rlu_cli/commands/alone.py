"""One command at a time in a folder that it fills over hours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rlu_cli.errors import UsageError, printable

_LOCK = ".rlu.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock in the folder, which the system takes back whenever the process ends.

    Raises UsageError E106 if another process holds it, OSError if the folder cannot be written.
    """
    with (folder / _LOCK).open("ab") as file:
        if not _locked(file):
            raise UsageError(
                "E106",
                f"another rlu is writing to {printable(folder)}",
                hint="wait for it, or give another --out",
            )
        yield


if sys.platform == "win32":
    import msvcrt

    def _locked(file: BinaryIO) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _locked(file: BinaryIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
