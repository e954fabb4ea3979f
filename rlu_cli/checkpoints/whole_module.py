"""The state dict of a module that was pickled whole, from the attributes of its opaque leaf."""

from __future__ import annotations

from typing import Any

from rlu_cli.checkpoints.pickle_values import LEAVES, Leaf, Opaque, entries, sequence

MAX_MODULES = 100_000
_PARTS = ("_parameters", "_buffers", "_modules")


def is_module(value: Any) -> bool:
    """Whether an opaque leaf has the attributes of a `torch.nn.Module`."""
    attributes = value.state if isinstance(value, Opaque) else None
    return isinstance(attributes, dict) and all(
        isinstance(attributes.get(part), dict) for part in _PARTS
    )


def module_state(module: Opaque) -> dict[str, Leaf]:
    """Parameters and buffers by name, in the order of `Module.state_dict()`.

    At most `MAX_MODULES` modules are visited; modules that hold each other end there too.
    """
    state: dict[str, Leaf] = {}
    waiting = [("", module)]
    for _ in range(MAX_MODULES):
        if not waiting:
            break
        prefix, one = waiting.pop()
        state.update({f"{prefix}{name}": leaf for name, leaf in _own(one).items()})
        children = entries(one.state["_modules"]) or {}
        waiting += [
            (f"{prefix}{name}.", child)
            for name, child in reversed(children.items())
            if isinstance(name, str) and is_module(child) and len(prefix) < 1000
        ]
    return state


def _own(module: Opaque) -> dict[str, Leaf]:
    attributes = module.state
    hidden = sequence(attributes.get("_non_persistent_buffers_set")) or []
    left_out = {name for name in hidden if isinstance(name, str)}
    own = {**attributes["_parameters"], **attributes["_buffers"]}
    return {
        name: leaf
        for name, leaf in own.items()
        if isinstance(name, str) and isinstance(leaf, LEAVES) and name not in left_out
    }
