"""Find the state dict in a trainer's checkpoint and strip wrapper prefixes from its names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlu_cli.checkpoints.source import Source, listed
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
)
PREFIXES = ("module.", "_orig_mod.", "_module.")
_MAX_DEPTH = 4


@dataclass(frozen=True)
class Unwrapped:
    """The state dict found in a trainer's checkpoint.

    state     tensors by name, in the file's order
    wrappers  keys that lead to it, outermost first
    outer     the dicts that hold these keys, outermost first
    """

    state: dict[str, Tensor]
    wrappers: tuple[str, ...]
    outer: tuple[Mapping[str, Any], ...]


def unwrap(content: Any, source: Source) -> Unwrapped:
    """The state dict in `content`; E208 when there is none."""
    found = _find(content, (), (), set())
    if found is None:
        raise _nothing(content, source)
    return found


def _find(
    content: Any,
    wrappers: tuple[str, ...],
    outer: tuple[Mapping[str, Any], ...],
    seen: set[int],
) -> Unwrapped | None:
    """Depth-first search; `seen` ends it on dicts that contain each other."""
    if not isinstance(content, dict) or id(content) in seen or len(wrappers) > _MAX_DEPTH:
        return None
    seen.add(id(content))
    items = plain_items(content)
    for key in (*WRAPPERS, *_only_child(items)):
        found = _find(items.get(key), (*wrappers, key), (*outer, items), seen)
        if found is not None:
            return found
    state = tensors(items)
    return Unwrapped(state, wrappers, outer) if state else None


def plain_items(content: dict[Any, Any]) -> dict[str, Any]:
    """The entries of a dict whose key is a string, in order.

    Calls `dict.items` itself: an attribute that the file sets on an OrderedDict could shadow it.
    """
    return {key: value for key, value in dict.items(content) if isinstance(key, str)}


def tensors(items: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in items.items() if isinstance(value, Tensor)}


def _only_child(items: Mapping[str, Any]) -> list[str]:
    """The key of the only dict of named tensors, whatever its name; empty if there are several."""
    if tensors(items):
        return []
    children = [
        key
        for key, value in items.items()
        if isinstance(value, dict) and tensors(plain_items(value))
    ]
    return children if len(children) == 1 else []


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


def strip_prefixes(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Names without the prefixes that all of them share, and those prefixes, outermost first."""
    names, stripped = list(state), []
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in names)), None):
        names = [name.removeprefix(prefix) for name in names]
        stripped.append(prefix)
    return dict(zip(names, state.values(), strict=True)), tuple(stripped)
