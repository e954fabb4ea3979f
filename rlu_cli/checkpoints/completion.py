"""What only one of two files holds: buffers that were not sent, layers that stayed at home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from rlu_cli.checkpoints.head import layer_parts
from rlu_cli.checkpoints.names import is_buffer
from rlu_cli.checkpoints.pair import CheckpointPair
from rlu_cli.checkpoints.source import listed
from rlu_cli.checkpoints.step_counters import COUNTER
from rlu_cli.errors import InputError, printable
from rlu_cli.types import Checkpoint

State = Mapping[str, Tensor]


def complete(pair: CheckpointPair, layer: str | None) -> CheckpointPair:
    """The pair with both files whole: what one lacks is taken from the other, and said in a note.

    Buffers may be missing on either side; layers, each as a whole, on the client's. Counters are
    never filled in, as they would say that nothing was trained; where the global file's buffers
    were never touched although its model is trained, counters say nothing about the round either
    and are left out.

    layer  the output layer, if it is known

    A tensor that is missing for no such reason is left to `check_pair`. Raises InputError E214 for
    a client's file without the output layer.
    """
    before, after = pair
    unsent = [name for name in before.state if name not in after.state]
    buffers = [name for name in unsent if is_buffer(name, before.state[name])]
    layers = [name for name in unsent if name not in buffers]
    extra = [n for n in after.state if n not in before.state]
    notes = list(pair.notes)
    if layers and not extra and _whole_layers(layers, after.state):
        _refuse_without_head(pair, layer)
        after = _filled(after, before, layers)
        notes.append(_kept_at_home(layers, after.state))
    if buffers:
        after = _filled(after, before, buffers)
        notes.append(f"{len(buffers)} buffers were not sent: those of the global model are used")
    if extra and all(is_buffer(name, after.state[name]) for name in extra):
        before = _filled(before, after, extra)
        notes.append(f"the global file lacks {len(extra)} buffers: the client's are used")
    if _never_synchronised(before.state):
        before, after = (_without_counters(one) for one in (before, after))
        notes.append(
            "BatchNorm buffers of the global file were never updated although its layers are "
            "trained: they are not synchronised, and the counters do not tell the round's steps"
        )
    return replace(pair, before=before, after=after, notes=tuple(notes))


def _filled(checkpoint: Checkpoint, other: Checkpoint, names: list[str]) -> Checkpoint:
    """The checkpoint with the named tensors of another, but for counters."""
    added = {n: other.state[n] for n in names if n.split(".")[-1] != COUNTER}
    return replace(checkpoint, state={**checkpoint.state, **added})


def _whole_layers(missing: list[str], sent: State) -> bool:
    """Whether no layer is there in part: none has some of its parameters missing."""
    there = {n.rpartition(".")[0] for n, t in sent.items() if not is_buffer(n, t)}
    return bool(there) and not {name.rpartition(".")[0] for name in missing} & there


def _kept_at_home(missing: list[str], state: State) -> str:
    whole = sum(not is_buffer(name, tensor) for name, tensor in state.items())
    return (
        f"the client sent {whole - len(missing)} of {whole} parameters: the others are taken from "
        "the global model, as if the client had not trained them"
    )


def _refuse_without_head(pair: CheckpointPair, layer: str | None) -> None:
    keys = [f"{part}.weight" if part else "weight" for part in layer_parts(layer or "")]
    unsent = [key for key in keys if key in pair.before.state and key not in pair.after.state]
    if layer is None or not unsent:
        return
    raise InputError(
        "E214",
        f"{printable(pair.after.path)} does not hold the output layer {printable(layer)}",
        facts=[("sent", listed(list(pair.after.state)))],
        why="the labels are read from the update of the output layer, which stayed with the client",
        hint="if another layer gives the logits, name it with --layer NAME; a client that keeps "
        "its output layer, as under FedPer, does not reveal its labels this way",
    )


def _never_synchronised(state: State) -> bool:
    """Whether the running statistics are as they were made, and the layers around them are not."""
    names = [n.removesuffix("running_mean") for n in state if n.endswith("running_mean")]
    norms = [n for n in names if f"{n}running_var" in state and f"{n}weight" in state]
    fresh = [
        bool((state[f"{n}running_mean"] == 0).all()) and bool((state[f"{n}running_var"] == 1).all())
        for n in norms
    ]
    trained = [bool((state[f"{n}weight"] != 1).any()) for n in norms]
    return bool(norms) and all(fresh) and all(trained)


def _without_counters(checkpoint: Checkpoint) -> Checkpoint:
    state = {n: t for n, t in checkpoint.state.items() if n.split(".")[-1] != COUNTER}
    return replace(checkpoint, state=state)
