"""A checkpoint's tensors, without running anything in the file."""

from __future__ import annotations

from rlu_cli.api.arguments import Weights, weights
from rlu_cli.checkpoints import DEFAULT_MAX_BYTES, open_from
from rlu_cli.types import Checkpoint


def open_checkpoint(path: Weights, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Checkpoint:
    """Open a checkpoint under inspection: a file or folder in a known format, or a state dict.

    path       file or folder; recognised by content, never by suffix
    max_bytes  largest file, and largest sum of its tensors, in bytes

    Raises InputError E201 to E208; nothing in the file is ever run.
    """
    return open_from(weights(path), "state dict", max_bytes=max_bytes)
