"""Content hashes of input files, as given in every report."""

from __future__ import annotations

import hashlib
from pathlib import Path

_BLOCK = 2**20


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
