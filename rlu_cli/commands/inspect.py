"""`rlu inspect`: what is in a checkpoint, or a pair of them, without running anything from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlu_cli.errors import RluError, printable

if TYPE_CHECKING:
    from rlu_cli.types import Checkpoint

_BYTES = 2**34
_SHOWN = 4
_LABEL = 18  # width of the longest label


def inspect(
    file: Annotated[Path, typer.Argument(help="A checkpoint: file or folder.", show_default=False)],
    file2: Annotated[
        Path | None,
        typer.Argument(help="The client's checkpoint, to compare.", show_default=False),
    ] = None,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Output layer.")] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest file to open.")] = _BYTES,
) -> None:
    """Show what is in a checkpoint, or in a pair of them; runs no code from it.

    Format, wrappers, output layer and settings of each, and checks on the pair.
    """
    from rlu_cli.checkpoints import open_checkpoint

    paths = [path for path in (file, file2) if path is not None]
    opened = _named([open_checkpoint(path, max_bytes=max_bytes) for path in paths])
    for checkpoint in opened:
        for line in _describe(checkpoint, layer):
            typer.echo(line)
    for line in _settings(paths, opened):
        typer.echo(line)
    if len(opened) == 2 and all(one.named for one in opened):
        for line in _compare(opened[0], opened[1], layer):
            typer.echo(line)


def _named(opened: list[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints with names for tensors that have none, where these are known."""
    from rlu_cli.case.positions import with_names

    try:
        return with_names(opened, lambda name: None)
    except RluError:
        return opened


def _describe(checkpoint: Checkpoint, layer: str | None) -> Iterator[str]:
    from rlu_cli.checkpoints import batch_norm_counters

    numbers = sum(t.numel() for t in checkpoint.state.values())
    counters = batch_norm_counters(checkpoint.state)
    yield printable(checkpoint.path)
    rows = {
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "wrappers": " → ".join(printable(w) for w in checkpoint.wrappers) or "none",
        "prefixes": " ".join(printable(p) for p in checkpoint.prefixes) or "none",
        "tensors": f"{len(checkpoint.state)} ({numbers:,} numbers)",
        "names": "none in the file: by position" if checkpoint.positional else "in the file",
        "widened": f"{checkpoint.narrow} to float32" if checkpoint.narrow else "no",
        "objects": _objects(checkpoint),
        "architecture": _architectures(checkpoint),
        "BatchNorm steps": f"{max(counters.values()):g}" if counters else "no BatchNorm",
    }
    for name, fact in checkpoint.facts.items():
        rows[printable(name)] = f"{printable(fact.value)}  ({printable(fact.source)})"
    yield from _rows(rows)
    if not checkpoint.named:
        unnamed = "unknown: the tensors have no names, and are of no known architecture"
        yield from _rows({"output layer": unnamed})
        return
    yield from _rows({"output layer": _layer(checkpoint, layer)})  # last: it may not be found


def _objects(checkpoint: Checkpoint) -> str:
    """The Python objects in the file, by their classes."""
    held = checkpoint.objects
    shown = ", ".join(printable(name, 80) for name in held[:_SHOWN])
    more = "" if len(held) <= _SHOWN else f"  ({len(held) - _SHOWN} more)"
    return f"not built: {shown}{more}" if held else "none"


def _settings(paths: Sequence[Path], opened: Sequence[Checkpoint]) -> Iterator[str]:
    """What variables, settings files and the checkpoints themselves would tell an attack."""
    from rlu_cli.case.gather import gather_settings
    from rlu_cli.checkpoints import CheckpointPair
    from rlu_cli.settings.layers import Layer

    try:
        found = gather_settings(Layer({}), paths, CheckpointPair(opened[0], opened[-1]))
    except RluError as refused:
        yield f"settings: {refused.message}"
        return
    rows = {
        name: f"{printable(setting.value)}  ({printable(setting.source)})"
        for name, setting in found.items()
        if setting.source != "default"
    }
    if rows:
        yield "settings"
        yield from _rows(rows)


def _layer(checkpoint: Checkpoint, layer: str | None) -> str:
    from rlu_cli.checkpoints import find_output_layer, read_head

    name = find_output_layer(checkpoint.state, layer=layer)
    head = read_head(checkpoint.state, name)
    classes, width = head.weight.shape
    bias = "with bias" if head.bias is not None else "without bias"
    return f"{printable(name)}: {classes} classes, {width} wide, {bias}"


def _architectures(checkpoint: Checkpoint) -> str:
    from rlu_cli.models import packaged_model, recognise

    found, packaged = recognise(checkpoint.state), packaged_model(checkpoint.state)
    if packaged is not None and not found:
        return packaged
    if not found:
        return "none that rlu knows: name your own with --model"
    return "; ".join(
        f"{c.name} {' '.join(f'{k}={v}' for k, v in c.arguments.items())}"
        f" (open: {', '.join(c.open) or 'nothing'})"
        for c in found
    )


def _compare(before: Checkpoint, after: Checkpoint, layer: str | None) -> Iterator[str]:
    from rlu_cli.audit.diagnostics import relative_sum
    from rlu_cli.case.sent import read_sent
    from rlu_cli.checkpoints import CheckpointPair, check_pair, find_output_layer
    from rlu_cli.settings.layers import flag_layer, resolve
    from rlu_cli.settings.specs import ATTACK

    yield "pair"
    pair = CheckpointPair(before, after)
    pair, decided = read_sent(pair, resolve([flag_layer({"layer": layer})], ATTACK))
    pair = replace(pair, layer=find_output_layer(pair.before.state, layer=layer))
    check_pair(pair)
    update = pair.update
    rows = {
        "sent": f"{decided['update_kind'].value}  ({decided['update_kind'].source})",
        "size of ΔW": f"{float(update.weight.norm()):.3g}",
        "column sums of ΔW": f"{relative_sum(update.weight):.2%} of its size",
    }
    if update.bias is not None:
        rows["size of Δb"] = f"{float(update.bias.norm()):.3g}"
        rows["sum of Δb"] = f"{relative_sum(update.bias[:, None]):.2%} of its size"
        largest = update.bias.argsort(descending=True)[:5].tolist()
        rows["raised most"] = "classes " + ", ".join(map(str, largest))
    steps = pair.steps
    rows["BatchNorm steps"] = "n/a" if steps is None else str(steps)
    rows |= {f"note {number}": note for number, note in enumerate(pair.notes, 1)}
    yield from _rows(rows)


def _rows(rows: dict[str, str]) -> Iterator[str]:
    width = max(_LABEL, *map(len, rows)) + 2
    for label, text in rows.items():
        yield f"  {label:<{width}}{text}"
