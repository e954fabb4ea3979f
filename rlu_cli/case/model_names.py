"""Both files' tensors under the names of the model, and what the model does not have left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from torch import Tensor, nn

from rlu_cli.checkpoints import CheckpointPair, is_beside, match_names, plain_name, shapes_of
from rlu_cli.errors import printable
from rlu_cli.models import ARCHITECTURES, packaged_model, recognise, saved_names
from rlu_cli.types import Checkpoint

State = Mapping[str, Tensor]
_DEEPEST = 4  # parts of a prefix
_SHOWN = 4


def named_as_known(pair: CheckpointPair, model: str | None) -> CheckpointPair:
    """The pair under the names of a known architecture: wrappers and prefixes left out.

    model  one of the table; None for whichever is recognised

    Unchanged where no way of naming the tensors fits.
    """
    fits: Callable[[State], object] = _recognised if model is None else ARCHITECTURES[model].read
    for names in _ways(pair.before.state):
        if fits({new: pair.before.state[old] for old, new in names.items()}):
            return _renamed(pair, names)
    return pair


def _recognised(state: State) -> bool:
    return bool(recognise(state)) or packaged_model(state) is not None


def named_as(pair: CheckpointPair, model: nn.Module) -> CheckpointPair:
    """The pair under the names of a model that was built.

    Tensors that the model lacks are left out if they stand in no part of it: a class-weighted loss,
    a teacher, a counter. Unchanged where the model needs a tensor that is not there.
    """
    own = {n: n for n, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    for names in (own, saved_names(model)):
        found = _matched(pair.before.state, model, names)
        if found is not None:
            return _renamed(pair, found)
    return pair


def _matched(state: State, model: nn.Module, names: Mapping[str, str]) -> dict[str, str] | None:
    """Names in the state → the model's own; None where it needs another tensor, or has no place.

    names  as a file may have them → the model's own
    """
    tensors = model.state_dict()
    match = match_names(shapes_of(state), {n: tuple(tensors[o].shape) for n, o in names.items()})
    lacking = [
        name for name in names if name not in match.names.values() and not name.endswith("tracked")
    ]
    parts = {name.split(".")[0] for name in names}
    outside = all(
        is_beside(name, tensor) or not (name.split(".")[0] in parts or name[0].isdecimal())
        for name, tensor in state.items()
        if name not in match.names
    )
    if not names or lacking or not outside:
        return None
    return {name: names[partner] for name, partner in match.names.items()}


def _ways(state: State) -> Iterator[dict[str, str]]:
    """Ways to name the tensors: as they are, without wrappers' parts, without a prefix; then both.

    What a way leaves out stands beside the model: a loss, a teacher, a counter.
    """
    whole = {name: name for name in state}
    needed = {name: name for name, tensor in state.items() if not is_beside(name, tensor)}
    counters = {n: n for n in state if n.endswith("num_batches_tracked")}
    own = {**needed, **counters}
    plain = {name: plain_name(name) for name in own}
    for names in (whole, own, plain):
        if len(set(names.values())) < len(names):
            continue
        yield names
    for prefix in _prefixes(plain.values()):
        stripped = {o: n.removeprefix(prefix) for o, n in plain.items() if n.startswith(prefix)}
        if len(stripped) == len(plain):
            yield stripped


def _prefixes(names: Collection[str]) -> list[str]:
    """What all names begin with, in whole parts, the shortest first."""
    starts = Counter(
        ".".join(parts[:depth]) + "."
        for name in names
        for parts in [name.split(".")]
        for depth in range(1, min(len(parts), _DEEPEST + 1))
    )
    return sorted((start for start, often in starts.items() if often == len(names)), key=len)


def _renamed(pair: CheckpointPair, names: Mapping[str, str]) -> CheckpointPair:
    """The pair with the tensors of `names` alone, renamed, and notes on what changed."""
    left = [name for name in pair.before.state if name not in names]
    if not left and all(old == new for old, new in names.items()):
        return pair
    before, after = (_under(checkpoint, names) for checkpoint in pair)
    if pair.before is pair.after:
        after = before
    notes = [*pair.notes, *_changes(names), *_ignored(left)]
    return CheckpointPair(before, after, None, tuple(notes))


def _under(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    state = {names[n]: t for n, t in checkpoint.state.items() if n in names}
    momentum = {names[n]: t for n, t in checkpoint.momentum.items() if n in names}
    return replace(checkpoint, state=state, momentum=momentum)


def _changes(names: Mapping[str, str]) -> list[str]:
    changed = next(((old, new) for old, new in names.items() if old != new), None)
    if changed is None:
        return []
    old, new = (printable(name, 80) for name in changed)
    return [f"names were aligned with the model: {old} is its {new}"]


def _ignored(left: list[str]) -> list[str]:
    if not left:
        return []
    more = f"  ({len(left) - _SHOWN} more)" * (len(left) > _SHOWN)
    shown = ", ".join(printable(name, 80) for name in left[:_SHOWN])
    return [f"ignored, as the model does not have them: {shown}{more}"]
