"""Standard streams that are closed: `>&-` and `2>&-` lose no report and spoil no file."""

from __future__ import annotations

import errno
import io
import os
import sys


class _Closed(io.TextIOBase):
    """Standard output that is closed: writing to it fails, as to a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.EBADF, "standard output is closed")

    def writable(self) -> bool:
        return True


def keep_streams() -> None:
    """Occupy closed descriptors, and stand in for closed streams.

    A descriptor from 0 to 2 that is free would be that of the next file opened, and what a library
    says on stderr would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest one that is free
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the end)


def discard_output() -> None:
    """Send what is still to be printed nowhere: its reader is gone, or its disk is full."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
