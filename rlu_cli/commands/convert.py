"""`rlu convert`: what was read from a checkpoint, written as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlu_cli.commands.output import check_output, replace_file
from rlu_cli.errors import InputError, UsageError, printable

if TYPE_CHECKING:
    from rlu_cli.types import Checkpoint

_BYTES = 2**34
_SUFFIX = ".safetensors"


def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint: file or folder.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="OUT.safetensors, written.", show_default=False)],
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Checkpoint whose names are taken where FILE has none (a list, a flat vector).",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model whose names are taken likewise.")
    ] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Argument of the model.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest file to open.")] = _BYTES,
) -> None:
    """Write what was read from a checkpoint as safetensors; runs no code from it.

    The state dict alone, without wrappers and common prefixes, half precision as float32.
    """
    if out.suffix != _SUFFIX:
        raise UsageError(
            "E101",
            f"{printable(out)} does not end in {_SUFFIX}",
            hint=f"rlu convert writes that format only: give a name such as {file.stem}{_SUFFIX}",
        )
    inputs = [path for path in (file, like) if path is not None]
    check_output(out, inputs, force=force)
    opened = _opened(inputs, model, model_arg or [], max_bytes)
    _write(opened, out)
    typer.echo(f"{printable(out)}: {len(opened.state)} tensors from {printable(file)}")
    if opened.objects:
        typer.echo(f"left out: Python objects, {', '.join(map(printable, opened.objects))}")


def _opened(inputs: list[Path], model: str | None, given: list[str], limit: int) -> Checkpoint:
    """The first of the files, with names from the second or from the model if it has none."""
    from rlu_cli.case.positions import with_names
    from rlu_cli.checkpoints import open_checkpoint
    from rlu_cli.models import parse_argument

    settings = {"model": model, "model_args": dict(map(parse_argument, given))}
    opened = [open_checkpoint(path, max_bytes=limit) for path in inputs]
    return with_names(opened, settings.get)[0]


def _write(checkpoint: Checkpoint, out: Path) -> None:
    """Write the tensors whole or not at all, mode 0600. Raises InputError E201."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {name: tensor.clone().contiguous() for name, tensor in checkpoint.state.items()}
    try:
        replace_file(out, lambda partial: save_file(state, partial, {"format": "pt"}))
    except (OSError, SafetensorError, ValueError) as problem:  # a name that is no text
        raise InputError(
            "E201",
            f"cannot write {printable(out)}",
            why=printable(problem),
            hint="free some space or give another OUT",
        ) from None
