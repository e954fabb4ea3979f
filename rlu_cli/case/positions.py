"""Names for checkpoints whose tensors have none: from the other file, or from the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rlu_cli.checkpoints import Layout, named_by, shapes_of
from rlu_cli.errors import InputError, printable
from rlu_cli.models import possible_layouts
from rlu_cli.types import Checkpoint


def with_names(opened: Sequence[Checkpoint], value: Callable[[str], Any]) -> list[Checkpoint]:
    """The checkpoints with every tensor named.

    opened  of one round; where one has names, they are those of the others
    value   settings: `model`, `model_args` and `classes` tell the layout

    Raises InputError E215 if no layout fits all of those without names.
    """
    unnamed = [one for one in opened if not one.named]
    if not unnamed:
        return list(opened)
    for layout in _layouts(opened, unnamed[0], value):
        named = [one if one.named else named_by(one, layout) for one in opened]
        complete = [one for one in named if one is not None]
        if len(complete) == len(opened):
            return complete
    raise _no_names(unnamed[0], value("model"))


def _layouts(
    opened: Sequence[Checkpoint], unnamed: Checkpoint, value: Callable[[str], Any]
) -> Iterator[Layout]:
    yield from (one.state for one in opened if one.named)
    shapes = list(shapes_of(unnamed.state).values())
    classes = value("classes")
    count = len(classes) if classes else None
    yield from possible_layouts(shapes, value("model"), value("model_args") or {}, count)


def _no_names(checkpoint: Checkpoint, model: str | None) -> InputError:
    shapes = [tuple(tensor.shape) for tensor in checkpoint.state.values()]
    shown = ", ".join(map(str, shapes[:4])) + ("" if len(shapes) <= 4 else ", …")
    fits = f"are not those of {printable(model)}" if model else "fit no known architecture"
    return InputError(
        "E215",
        f"{printable(checkpoint.path)} has {len(shapes)} tensors without names, and their shapes "
        f"{fits}",
        facts=[("shapes", shown)],
        hint="name the architecture with --model and --model-arg, or give the other file with "
        "names; they are expected in the order of model.state_dict()",
    )
