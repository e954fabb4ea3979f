"""Safetensors: a length, a JSON header, then the tensors' bytes; the format cannot hold code."""

from __future__ import annotations

import re
import struct

from safetensors import safe_open

from rlu_cli.checkpoints.plain import MAX_TENSORS
from rlu_cli.checkpoints.source import Content, Format, Source, cause, corrupt, malformed
from rlu_cli.errors import InputError

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 16 * 2**20


def read(source: Source) -> Content:
    """Tensors by name, copied out of the file, in the natural order of their names.

    The format sorts its names and does not store the order of the layers; natural order, "fc2"
    before "fc10", is the closest approximation.
    """
    _check_header(source)
    try:
        with safe_open(source.path, framework="pt", device="cpu") as file:
            names = file.keys()
            if len(names) > MAX_TENSORS:
                raise malformed(source, f"it holds {len(names):,} tensors, more than any model")
            return Content({n: file.get_tensor(n).clone() for n in sorted(names, key=natural)})
    except InputError:
        raise
    except Exception as error:
        raise corrupt(source, cause(error)) from error


def _check_header(source: Source) -> None:
    """Check the header's length against the file before anything is allocated for it."""
    (length,) = _LENGTH.unpack(source.read(0, _LENGTH.size))
    if length > source.size - _LENGTH.size:
        raise corrupt(
            source, f"its header claims {length:,} bytes of a file that has {source.size:,}"
        )
    if length > _MAX_HEADER:
        raise malformed(source, f"its header alone has {length:,} bytes")


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that compares the numbers in names by value."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts]


FORMAT = Format(matches=lambda opening: opening[8:9] == b"{", read=read)
