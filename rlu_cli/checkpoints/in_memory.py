"""Checkpoints from state dicts in memory, under the same checks as files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rlu_cli.checkpoints.plain import plain_state
from rlu_cli.checkpoints.source import Content, Source
from rlu_cli.checkpoints.unwrap import strip_prefixes, unwrap
from rlu_cli.types import Checkpoint

IN_MEMORY = "in memory"  # the format of such a checkpoint


def checkpoint_of_state(state: Mapping[str, Tensor], name: str, *, max_bytes: int) -> Checkpoint:
    """The checkpoint that reading a file with this state dict would return.

    state      tensors by name; a trainer's dict and prefixes such as "module." are unwrapped
    name       its name in errors and reports
    max_bytes  limit on the sum of its tensors

    Raises InputError E205 to E208 as `open_checkpoint` does.
    """
    source = Source(Path(name), io.BytesIO(), 0, max_bytes)
    found = unwrap(Content(dict(state)), source)
    leaves, prefixes = strip_prefixes(found.state)
    plain, narrow = plain_state(leaves, source)
    return Checkpoint(
        path=source.path,
        sha256=_digest(plain),
        format=IN_MEMORY,
        state={key: tensor.cpu() for key, tensor in plain.items()},
        wrappers=found.wrappers,
        prefixes=prefixes,
        narrow=narrow,
        positional=not found.named,
        named=found.named,
    )


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of all tensors, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
