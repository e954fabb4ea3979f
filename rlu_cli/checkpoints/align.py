"""The client's tensors under the global model's names, and what belongs to no model left out."""

from __future__ import annotations

from dataclasses import replace

from rlu_cli.checkpoints.names import is_beside, match_names, shapes_of
from rlu_cli.checkpoints.pair import CheckpointPair
from rlu_cli.checkpoints.source import listed
from rlu_cli.errors import printable
from rlu_cli.types import Checkpoint


def align(pair: CheckpointPair) -> CheckpointPair:
    """The pair with the client's tensors named as the global model's.

    What a trainer keeps beside the model (the weights of a loss, a teacher, a counter, a copy that
    an adapter replaced) and only one file has, or that stands in both under a name no model has, is
    left out. The notes of the pair say which names were aligned, and what was left out.
    """
    before, after = pair
    match = match_names(shapes_of(after.state), shapes_of(before.state))
    notes = list(pair.notes)
    if match.renamed:
        after = _named(after, dict(match.names))
        notes.append(_aligned(*match.prefixes))
    shared = before.state.keys() & after.state.keys()
    before, left = _without_beside(before, shared)
    after, also = _without_beside(after, shared)
    ignored = sorted({*left, *also})
    if ignored:
        notes.append(f"ignored, as no model has them: {listed(ignored)}")
    return replace(pair, before=before, after=after, notes=tuple(notes))


def _aligned(ours: str, theirs: str) -> str:
    one, other = (printable(prefix, 80) or "nothing" for prefix in (ours, theirs))
    if ours == theirs:
        return "tensors were matched without the names that wrappers add"
    return f"names were aligned: {one} in the client's file stands for {other} in the global one"


def _named(checkpoint: Checkpoint, names: dict[str, str]) -> Checkpoint:
    """The checkpoint with other names, in its own order; of names that collide, the matched one."""
    taken = set(names.values())
    state = {
        names.get(name, name): tensor
        for name, tensor in checkpoint.state.items()
        if name in names or name not in taken
    }
    momentum = {names.get(name, name): tensor for name, tensor in checkpoint.momentum.items()}
    return replace(checkpoint, state=state, momentum=momentum)


def _without_beside(checkpoint: Checkpoint, shared: set[str]) -> tuple[Checkpoint, list[str]]:
    """The checkpoint without what only it has and no model needs, and the names of that."""
    left = [n for n, t in checkpoint.state.items() if n not in shared and is_beside(n, t)]
    if not left:
        return checkpoint, []
    state = {name: t for name, t in checkpoint.state.items() if name not in left}
    return replace(checkpoint, state=state), left
