"""`rlu inspect`: what is in a checkpoint, or a pair of them, without running anything from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlu_cli.commands import run_options
from rlu_cli.errors import RluError, UsageError, printable

if TYPE_CHECKING:
    from rlu_cli.runs import Chosen
    from rlu_cli.types import Checkpoint, Setting

_BYTES = 2**34
_SHOWN = 4
_LABEL = 18  # width of the longest label


def inspect(
    file: Annotated[
        Path | None, typer.Argument(help="A checkpoint: file or folder.", show_default=False)
    ] = None,
    file2: Annotated[
        Path | None,
        typer.Argument(help="The client's checkpoint, to compare.", show_default=False),
    ] = None,
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Output layer.")] = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest file to open.")] = _BYTES,
    run: run_options.RunDir = None,
    round_: run_options.Round = None,
    client: run_options.Client = None,
) -> None:
    """Show what is in a checkpoint, or in a pair of them; runs no code from it.

    Format, wrappers, output layer and settings of each, and checks on the pair. With --run, the
    pair of a run folder, and what else is in it.
    """
    from rlu_cli.checkpoints import open_checkpoint

    chosen = run_options.chosen_pair(run, round_, client, before=file, after=file2)
    paths = _paths(chosen, file, file2)
    for line in _run(chosen):
        typer.echo(line)
    opened = _named([open_checkpoint(path, max_bytes=max_bytes) for path in paths])
    for checkpoint in opened:
        for line in _describe(checkpoint, layer):
            typer.echo(line)
    for line in _settings(paths, opened, chosen):
        typer.echo(line)
    if len(opened) == 2 and all(one.named for one in opened):
        for line in _compare(opened[0], opened[1], layer):
            typer.echo(line)


def _paths(chosen: Chosen | None, *files: Path | None) -> list[Path]:
    """The checkpoints to show. Raises UsageError E102 for none."""
    if chosen is not None:
        return [chosen.before, chosen.after]
    if files[0] is None:
        raise UsageError(
            "E102",
            "missing argument: FILE",
            hint="name a checkpoint, or the folder of a run with --run DIR",
        )
    return [path for path in files if path is not None]


def _run(chosen: Chosen | None) -> Iterator[str]:
    """The system of a run folder, its rounds and clients, the pair that is shown, and notes."""
    if chosen is None:
        return
    run = chosen.run
    rounds = sorted({one.round for one in run.exchanges})
    clients = dict.fromkeys(one.client for one in run.exchanges if one.client)
    yield printable(run.path)
    rows = {
        "system": run.system,
        "rounds": _few(list(map(str, rounds))),
        "clients": _few(list(clients)),
        "shown": chosen.note,
        "model": "not named" if run.model is None else _told(run.model),
        "model code": "none" if run.code is None else f"{printable(run.code.reference)}  (not run)",
    }
    yield from _rows(rows)
    yield from (f"  note: {note}" for note in run.notes)


def _few(names: list[str]) -> str:
    shown = ", ".join(printable(name, 60) for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return (shown or "none") + (f", …, {printable(names[-1], 60)}" if more > 0 else "")


def _told(given: Setting) -> str:
    return f"{printable(given.value, 80)}  ({printable(given.source)})"


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


def _settings(
    paths: Sequence[Path], opened: Sequence[Checkpoint], chosen: Chosen | None
) -> Iterator[str]:
    """What variables, settings files and the checkpoints themselves would tell an attack."""
    from rlu_cli.case.gather import gather_settings
    from rlu_cli.checkpoints import CheckpointPair
    from rlu_cli.settings.layers import Layer

    try:
        pair = CheckpointPair(opened[0], opened[-1])
        found = gather_settings(Layer({}), paths, pair, run=chosen)
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
