"""Find the state in what a file holds, and strip wrapper prefixes from its names.

A state is a dict of tensors or arrays by name, a module pickled whole, a list of them in the order
of the parameters, or one flat vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rlu_cli.checkpoints.pickle_machine import ScanLimit
from rlu_cli.checkpoints.pickle_values import LEAVES, Leaf, Opaque, Unplain, entries, sequence
from rlu_cli.checkpoints.source import Content, Source, holds_code, listed, malformed
from rlu_cli.checkpoints.whole_module import is_module, module_state
from rlu_cli.errors import InputError

# Keys under which trainers keep the model, in search order: the first that holds tensors is used.
# Averaged copies (EMA) are not listed, because a client does not send them.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "model_state",
    "weights",
    "params",
    "parameters",
    "ndarrays",
)
# Keys under which programs send an update instead of a model.
DELTAS = ("delta", "deltas", "diff", "update", "weight_diff", "model_diff")
GRADIENTS = ("grad", "grads", "gradient", "gradients")
PREFIXES = ("module.", "_orig_mod.", "_module.")
_MAX_DEPTH = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Unwrapped:
    """The state found in a file.

    state     tensors, or what describes them, by name, in the file's order; numbered where the file
              has no names
    wrappers  keys that lead to it, outermost first
    outer     the dicts that hold these keys, outermost first
    named     whether the names are the file's
    """

    state: dict[str, Leaf]
    wrappers: tuple[str, ...]
    outer: tuple[Mapping[str, Any], ...]
    named: bool = True


def unwrap(content: Content, source: Source) -> Unwrapped:
    """The state in `content`.

    Raises InputError E208 when there is none, E203 when objects alone could hold it, E204 for
    modules without end.
    """
    try:
        found = _find(content.value, (), (), set())
    except ScanLimit as limit:
        raise malformed(source, str(limit)) from limit
    if found is not None:
        return found
    if content.objects:
        needs = listed(content.objects)
        what = "it contains Python objects, not only tensors"
        raise holds_code(source, what, it="them", needs=needs)
    raise _nothing(content.value, source)


def _find(
    content: Any,
    wrappers: tuple[str, ...],
    outer: tuple[Mapping[str, Any], ...],
    seen: set[int],
) -> Unwrapped | None:
    """Depth-first search; `seen` ends it on dicts that contain each other."""
    if content is None or id(content) in seen or len(wrappers) > _MAX_DEPTH:
        return None
    seen.add(id(content))
    if isinstance(content, Opaque) and is_module(content):
        state = module_state(content)
        return Unwrapped(state, wrappers, outer) if state else None
    listed_ = _in_order(content)
    if listed_:
        return Unwrapped(listed_, wrappers, outer, named=False)
    held = entries(content)
    if held is None:
        return None
    items = plain_items(held)
    state = tensors(items)
    for key in (*WRAPPERS, *_only_child(items), *_updates_in_order(items)):
        if key in state and (len(state) > 1 or len(_shape(state[key])) != 1):
            continue  # a parameter of that name, not a flat vector of all of them
        found = _find(items.get(key), (*wrappers, key), (*outer, items), seen)
        if found is not None:
            return found
    numbered = _by_number(state)
    return Unwrapped(numbered or state, wrappers, outer, not numbered) if state else None


def _by_number(state: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The tensors in the order of their numbers, if "0", "1", … is all they are named."""
    if not all(name.isascii() and name.isdecimal() for name in state):
        return {}
    names = sorted(state, key=lambda name: (len(name), name))
    return {n: state[n] for n in names} if names == list(map(str, range(len(names)))) else {}


def _in_order(content: Any) -> dict[str, Leaf]:
    """The tensors of a list, numbered; one that stands alone is a list of one."""
    if isinstance(content, LEAVES):
        return {"0": content}
    items = sequence(content) or []
    if not items or not all(isinstance(item, LEAVES) for item in items):
        return {}
    return {str(number): item for number, item in enumerate(items)}


def plain_items(content: dict[Any, Any]) -> dict[str, Any]:
    """The entries of a dict whose key is a string, in order.

    Calls `dict.items` itself: a subclass given in memory could shadow it.
    """
    return {key: value for key, value in dict.items(content) if isinstance(key, str)}


def tensors(items: Mapping[Any, Any]) -> dict[str, Leaf]:
    return {
        name: value
        for name, value in items.items()
        if isinstance(value, LEAVES) and isinstance(name, str)
    }


def _shape(leaf: Leaf) -> tuple[int, ...]:
    return () if isinstance(leaf, Unplain) else tuple(leaf.shape)


def _only_child(items: Mapping[str, Any]) -> list[str]:
    """The key of the only entry that holds named tensors or is a module; empty if there are more.

    Each dict is looked through once, however often it occurs.
    """
    if tensors(items):
        return []
    held: dict[int, bool] = {}
    for value in items.values():
        if id(value) not in held:
            inner = None if is_module(value) else entries(value)
            held[id(value)] = is_module(value) or bool(inner and tensors(inner))
    children = [key for key, value in items.items() if held[id(value)]]
    return children if len(children) == 1 else []


def _updates_in_order(items: Mapping[str, Any]) -> list[str]:
    """Keys of updates that are sent as a list or as one flat vector."""
    return [key for key in (*DELTAS, *GRADIENTS) if _in_order(items.get(key))]


def _nothing(content: Any, source: Source) -> InputError:
    found = f"a {type(content).__name__}"
    if isinstance(content, dict):
        found = f"a dict with the keys {listed(list(plain_items(content)))}"
    return InputError(
        "E208",
        f"no state dict in {source.name}",
        facts=[("found", found)],
        hint="on the machine that trained it: torch.save(model.state_dict(), …), or save a dict "
        f"with it under one of {', '.join(WRAPPERS)}",
    )


def strip_prefixes(state: Mapping[str, T]) -> tuple[dict[str, T], tuple[str, ...]]:
    """Names without the prefixes that all of them share, and those prefixes, outermost first."""
    names, stripped = list(state), []
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in names)), None):
        names = [name.removeprefix(prefix) for name in names]
        stripped.append(prefix)
    return dict(zip(names, state.values(), strict=True)), tuple(stripped)
