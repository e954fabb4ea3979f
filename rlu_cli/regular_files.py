"""Files that others made, or that their files name: regular ones only, and their size first."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def read_regular(path: Path, max_bytes: int) -> bytes:
    """All bytes of a regular file.

    A pipe is not waited for, and a device is not read: the kind is that of the file that was
    opened, not of a name that could change. Raises OSError if it is no regular file, has over
    `max_bytes` bytes or cannot be read, ValueError for what no path can be.
    """
    handle = os.open(path, os.O_RDONLY | _WITHOUT_WAITING)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a regular file")
        if found.st_size > max_bytes:
            raise OSError(f"over {max_bytes:,} bytes")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # it grew
        raise OSError(f"over {max_bytes:,} bytes")
    return data
