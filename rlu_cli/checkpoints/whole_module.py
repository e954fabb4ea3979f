"""The state dict of a module that was pickled whole, from the attributes of its opaque leaf."""

from __future__ import annotations

from collections.abc import ItemsView
from typing import Any

from rlu_cli.checkpoints.pickle_machine import ScanLimit
from rlu_cli.checkpoints.pickle_values import LEAVES, Leaf, Opaque, sequence

MAX_MODULES = 100_000  # and entries that are none
_MAX_DEPTH = 100
_MAX_NAME = 1000
_PARTS = ("_parameters", "_buffers", "_modules")


def is_module(value: Any) -> bool:
    """Whether an opaque leaf has the attributes of a `torch.nn.Module`."""
    attributes = value.state if isinstance(value, Opaque) else None
    return isinstance(attributes, dict) and all(
        isinstance(attributes.get(part), dict) for part in _PARTS
    )


def module_state(module: Opaque) -> dict[str, Leaf]:
    """Parameters and buffers by name, in the order of `Module.state_dict()`.

    Raises ScanLimit where more than `MAX_MODULES` are entered, as in modules that hold each other.
    """
    state = _own(module, "")
    open_ = [("", iter(_children(module)))]
    for _ in range(MAX_MODULES):
        prefix, children = open_[-1]
        name, child = next(children, ("", None))
        if is_module(child) and isinstance(name, str):
            inner = f"{prefix}{name}."
            if len(open_) > _MAX_DEPTH or len(inner) > _MAX_NAME:
                break
            state.update(_own(child, inner))
            open_.append((inner, iter(_children(child))))
        elif child is None and not name:
            open_.pop()
            if not open_:
                return state
    raise ScanLimit(f"its modules hold more than {MAX_MODULES:,} others, or each other")


def _children(module: Any) -> ItemsView[Any, Any]:
    children: dict[Any, Any] = module.state["_modules"]
    return children.items()


def _own(module: Any, prefix: str) -> dict[str, Leaf]:
    attributes = module.state
    hidden = sequence(attributes.get("_non_persistent_buffers_set")) or []
    left_out = {name for name in hidden if isinstance(name, str)}
    return {
        f"{prefix}{name}": leaf
        for part in ("_parameters", "_buffers")
        for name, leaf in attributes[part].items()
        if isinstance(name, str) and isinstance(leaf, LEAVES) and name not in left_out
    }
