"""The opcodes of a pickle and their arguments, read within limits.

Texts and bytes that are too long to be names stay where they are in the file.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Iterator
from typing import Any

from rlu_cli.checkpoints.pickle_machine import Machine, ScanLimit
from rlu_cli.checkpoints.pickle_values import Blob

LONGEST_NAME = 4096
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

# Opcodes with a length in front: its layout, and whether text, raw bytes or Python 2 text follow.
_LENGTHS = {
    "SHORT_BINUNICODE": ("<B", "text"),
    "BINUNICODE": ("<I", "text"),
    "BINUNICODE8": ("<Q", "text"),
    "SHORT_BINBYTES": ("<B", "bytes"),
    "BINBYTES": ("<I", "bytes"),
    "BINBYTES8": ("<Q", "bytes"),
    "BYTEARRAY8": ("<Q", "bytes"),
    "SHORT_BINSTRING": ("<B", "old"),
    "BINSTRING": ("<i", "old"),
}


class _Limited:
    """A stream of which one argument cannot take more than a name does."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def read(self, count: int) -> bytes:
        if count > LONGEST_NAME:
            raise ScanLimit(f"its pickle holds a number of {count:,} bytes")
        return self._stream.read(count)

    def readline(self) -> bytes:
        line = self._stream.readline(LONGEST_NAME + 1)
        if len(line) > LONGEST_NAME:
            raise ScanLimit(f"its pickle holds a line of more than {LONGEST_NAME:,} bytes")
        return line


def opcodes(stream: io.BytesIO, machine: Machine) -> Iterator[tuple[str, Any]]:
    """Each opcode's name and argument, up to STOP; what they take is spent in `machine`.

    Raises ScanLimit above its budgets, ValueError and the like on invalid data.
    """
    whole, limited = stream.getbuffer(), _Limited(stream)
    while True:
        code = stream.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise ValueError("the pickle ends early" if not code else f"unknown opcode {code!r}")
        length = _LENGTHS.get(opcode.name)
        arg: Any = None
        if length is not None:
            arg = _counted(stream, whole, *length)
            machine.spend(1, len(arg) if isinstance(arg, str | bytes) else 0)
        elif opcode.arg is not None:
            start = stream.tell()
            arg = opcode.arg.reader(limited)  # type: ignore[arg-type]
            machine.spend(1, stream.tell() - start)
        else:
            machine.spend(1)
        yield opcode.name, arg
        if opcode.name == "STOP":
            return


def _counted(stream: io.BytesIO, whole: memoryview, layout: str, kind: str) -> str | bytes | Blob:
    size = struct.calcsize(layout)
    (count,) = struct.unpack(layout, stream.read(size))
    start = stream.tell()
    if not 0 <= count <= len(whole) - start:
        raise ValueError(f"the pickle claims {count:,} bytes where it has fewer")
    stream.seek(count, io.SEEK_CUR)
    piece = whole[start : start + count]
    if count > LONGEST_NAME:
        return Blob(piece, text=kind == "text")
    if kind == "bytes":
        return bytes(piece)
    return str(piece, "utf-8" if kind == "text" else "latin-1", "surrogatepass")
