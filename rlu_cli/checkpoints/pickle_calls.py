"""Whether a pickle uses the functions and storages it may name the way `torch.save` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlu_cli.checkpoints.pickle_globals import CALLED, DTYPES, REBUILD, STORAGES, UNPLAIN
from rlu_cli.checkpoints.pickle_machine import OPAQUE, Called, Global, Machine, Stored, Tuple


def call(machine: Machine, function: Any, args: Any) -> None:
    """`args` is None where an object is made without calling a function of the table."""
    name = function.name if isinstance(function, Global) else ""
    if name in CALLED:
        if not isinstance(args, Tuple) or not _CHECKS.get(name, _anything)(machine, args.items):
            machine.object_to(f"it calls {name} in an unusual way")
        machine.stack.append(Called(name))
        return
    if name not in machine.scan.foreign and name not in UNPLAIN and function is not OPAQUE:
        machine.object_to(f"it calls {name or 'something that is no function'}")
    machine.stack.append(OPAQUE)


def _anything(machine: Machine, args: tuple[Any, ...]) -> bool:
    return True


def _is_bytes(machine: Machine, args: tuple[Any, ...]) -> bool:
    """How protocol 2 writes bytes; any other codec would run for as long as the file likes."""
    return len(args) == 2 and args[1] in ("latin1", "latin-1")


def _is_view(machine: Machine, args: tuple[Any, ...]) -> bool:
    """A tensor inside its storage: torch makes the storages of legacy files longer on demand."""
    match args:
        case (Stored() as storage, int(offset), Tuple(shape), Tuple(strides), *rest):
            numbers = (offset, *shape, *strides)
            if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
                return False
            element = max([storage.element, *(_element(item) for item in rest)])
            last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            if 0 not in shape and (last + 1) * element > storage.nbytes:
                machine.scan.unplain["tensors larger than their storage"] = None
            return True
    return False


def _element(item: Any) -> int:
    return DTYPES.get(item.name, 0) if isinstance(item, Global) else 0


_CHECKS: dict[str, Callable[[Machine, tuple[Any, ...]], bool]] = {
    "_codecs.encode": _is_bytes,
    **dict.fromkeys(REBUILD, _is_view),
}


def stored_as(items: tuple[Any, ...]) -> Stored | None:
    """("storage", class, key, location, number of elements), in legacy files None behind it.

    What torch of 2017 wrote instead of None, a view of the storage, is refused.
    """
    match items:
        case ("storage", Global(name), str(key), str(), int(count), *rest) if name in STORAGES:
            element = STORAGES[name]
            return Stored(key, count * element, element) if count >= 0 and rest in _WHOLE else None
    return None


_WHOLE: tuple[list[None], ...] = ([], [None])
