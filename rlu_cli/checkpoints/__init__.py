"""Checkpoint readers, one file per format; none executes code from a checkpoint.

To add a format, add a file that defines a `Format` and a line in `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rlu_cli.checkpoints import safetensors_file, torch_legacy, torch_zip
from rlu_cli.checkpoints.align import align
from rlu_cli.checkpoints.completion import complete
from rlu_cli.checkpoints.facts import SCHEDULED, collect_facts
from rlu_cli.checkpoints.head import (
    find_output_layer,
    joint_layer,
    layer_parts,
    named_in,
    read_head,
)
from rlu_cli.checkpoints.in_memory import IN_MEMORY, checkpoint_of_state
from rlu_cli.checkpoints.momentum import momentum_buffers, momentum_head
from rlu_cli.checkpoints.names import is_beside, match_names, plain_name, shapes_of
from rlu_cli.checkpoints.pair import CheckpointPair, check_pair
from rlu_cli.checkpoints.plain import plain_state
from rlu_cli.checkpoints.sniff import sniff
from rlu_cli.checkpoints.source import Format, open_source
from rlu_cli.checkpoints.step_counters import batch_norm_counters, counter_changes
from rlu_cli.checkpoints.unwrap import strip_prefixes, unwrap
from rlu_cli.checkpoints.update_kind import GRADIENT_RATE, as_weights, recognise_kind
from rlu_cli.types import Checkpoint

__all__ = [
    "DEFAULT_MAX_BYTES",
    "FORMATS",
    "GRADIENT_RATE",
    "IN_MEMORY",
    "SCHEDULED",
    "CheckpointPair",
    "CheckpointSource",
    "align",
    "as_weights",
    "batch_norm_counters",
    "check_pair",
    "complete",
    "counter_changes",
    "find_output_layer",
    "is_beside",
    "joint_layer",
    "layer_parts",
    "match_names",
    "momentum_head",
    "named_in",
    "open_checkpoint",
    "open_from",
    "plain_name",
    "read_head",
    "recognise_kind",
    "shapes_of",
]

CheckpointSource = Path | Mapping[str, Tensor]  # a file, or a state dict in memory
DEFAULT_MAX_BYTES = 16 * 2**30

FORMATS: dict[str, Format] = {
    "torch-zip": torch_zip.FORMAT,
    "torch-legacy": torch_legacy.FORMAT,
    "safetensors": safetensors_file.FORMAT,
}


def open_checkpoint(path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Checkpoint:
    """The tensors of a checkpoint file, without running anything in it.

    path       torch zip, torch legacy or safetensors, recognised by content, not by suffix
    max_bytes  largest file, and largest sum of its tensors, in bytes

    Raises InputError: E201 unreadable, E202 unknown or corrupt, E203 holds code, E204 malformed on
    purpose, E205 too large, E206 not plain tensors, E207 not finite, E208 no tensors.
    """
    with open_source(path, max_bytes) as source:
        name = sniff(source, FORMATS)
        content = FORMATS[name].read(source)
        digest = source.sha256()
    found = unwrap(content, source)
    state, prefixes = strip_prefixes(found.state)
    momentum, _ = plain_state(momentum_buffers(found.outer, state), source)
    state, narrow = plain_state(state, source)
    return Checkpoint(
        path=path,
        sha256=digest,
        format=name,
        state=state,
        wrappers=found.wrappers,
        prefixes=prefixes,
        facts=collect_facts(found.outer, path.name),
        narrow=narrow,
        momentum=momentum,
    )


def open_from(
    source: CheckpointSource, name: str, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> Checkpoint:
    """A checkpoint from a file or from a state dict, which errors call `name`.

    Raises InputError as `open_checkpoint` does.
    """
    if isinstance(source, Path):
        return open_checkpoint(source, max_bytes=max_bytes)
    return checkpoint_of_state(source, name, max_bytes=max_bytes)
