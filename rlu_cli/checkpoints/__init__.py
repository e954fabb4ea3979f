"""Checkpoint readers, one file per format; none executes code from a checkpoint.

To add a format, add a file that defines a `Format` and a line in `FORMATS`, or a `FolderFormat` and
a line in `FOLDERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rlu_cli.checkpoints import (
    huggingface,
    npy,
    npz,
    safetensors_file,
    torch_distributed,
    torch_folder,
    torch_legacy,
    torch_zip,
)
from rlu_cli.checkpoints.align import align
from rlu_cli.checkpoints.completion import complete
from rlu_cli.checkpoints.facts import SCHEDULED, collect_facts
from rlu_cli.checkpoints.folder import FolderFormat, open_folder
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
from rlu_cli.checkpoints.pickle_values import Opaque, entries
from rlu_cli.checkpoints.plain import plain_state
from rlu_cli.checkpoints.positional import Layout, named_by
from rlu_cli.checkpoints.sniff import sniff, sniff_folder
from rlu_cli.checkpoints.source import Content, Format, Source, is_folder, open_source
from rlu_cli.checkpoints.step_counters import batch_norm_counters, counter_changes
from rlu_cli.checkpoints.unwrap import strip_prefixes, unwrap
from rlu_cli.checkpoints.update_kind import GRADIENT_RATE, as_weights, recognise_kind
from rlu_cli.types import Checkpoint

__all__ = [
    "DEFAULT_MAX_BYTES",
    "FOLDERS",
    "FORMATS",
    "GRADIENT_RATE",
    "IN_MEMORY",
    "SCHEDULED",
    "CheckpointPair",
    "CheckpointSource",
    "Layout",
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
    "named_by",
    "named_in",
    "open_attributes",
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
    "npz": npz.FORMAT,
    "npy": npy.FORMAT,
    "torch-zip": torch_zip.FORMAT,
    "torch-legacy": torch_legacy.FORMAT,
    "safetensors": safetensors_file.FORMAT,
}
FOLDERS: dict[str, FolderFormat] = {
    "torch-folder": torch_folder.FORMAT,
    "torch-distributed": torch_distributed.FORMAT,
    "hugging-face": huggingface.FORMAT,
}


def open_checkpoint(path: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Checkpoint:
    """The tensors of a checkpoint file, without running anything in it.

    path       file in one of `FORMATS`, recognised by content, not by suffix; or folder in one of
               `FOLDERS`, recognised by the names of its files
    max_bytes  largest file, and largest sum of its tensors, in bytes

    Objects of classes that are not known are never built, and listed in `objects`. Raises
    InputError: E201 unreadable, E202 unknown or corrupt, E203 nothing but code, E204 malformed on
    purpose, E205 too large, E206 not plain tensors, E207 not finite, E208 no tensors.
    """
    if is_folder(path):
        with open_folder(path, max_bytes) as folder:
            name = sniff_folder(path, FOLDERS)
            content = FOLDERS[name].read(folder)
            opened = _opened(content, folder.source, name)
            return replace(opened, sha256=folder.sha256())
    with open_source(path, max_bytes) as source:
        name = sniff(source, FORMATS)
        opened = _opened(FORMATS[name].read(source), source, name)
        return replace(opened, sha256=source.sha256())


def open_attributes(path: Path, *, max_bytes: int) -> dict[str, Any]:
    """The plain attributes of an object that a file holds, such as a trainer's arguments.

    The object is not built. Members of enumerations are their text. Raises InputError as
    `open_checkpoint` does; without attributes the dict is empty.
    """
    with open_source(path, max_bytes) as source:
        held = entries(FORMATS[sniff(source, FORMATS)].read(source).value) or {}
    named = {key: value for key, value in held.items() if isinstance(key, str)}
    texts = {key: v.text if isinstance(v, Opaque) else v for key, v in named.items()}
    return {key: v for key, v in texts.items() if isinstance(v, (bool, int, float, str))}


def _opened(content: Content, source: Source, name: str) -> Checkpoint:
    """The checkpoint in what was read, while its file is open; its hash is not known yet."""
    found = unwrap(content, source)
    leaves, prefixes = strip_prefixes(found.state)
    momentum, _ = plain_state(momentum_buffers(found.outer, leaves), source)
    state, narrow = plain_state(leaves, source)
    return Checkpoint(
        path=source.path,
        sha256="",
        format=name,
        state=state,
        wrappers=found.wrappers,
        prefixes=prefixes,
        facts=collect_facts(found.outer, source.path.name),
        narrow=narrow,
        momentum=momentum,
        objects=content.objects,
        positional=not found.named,
        named=found.named,
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
