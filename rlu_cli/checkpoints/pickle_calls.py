"""Check that a pickle uses the allowed functions and storages as `torch.save` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlu_cli.checkpoints.pickle_globals import CALLED, DTYPES, REBUILD, STORAGES, UNPLAIN
from rlu_cli.checkpoints.pickle_machine import OPAQUE, Called, Global, Machine, Stored, Tuple


def call(machine: Machine, function: Any, args: Any) -> None:
    """Follow a call; `args` is None for opcodes that create an object of a class."""
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
    """Bytes as protocol 2 writes them; another codec could run for as long as the file chooses."""
    return len(args) == 2 and args[1] in ("latin1", "latin-1")


def _is_view(machine: Machine, args: tuple[Any, ...]) -> bool:
    """Whether `args` describe a view of a storage; one beyond its storage is noted as not plain.

    torch would enlarge the storages of legacy files to fit such a view.
    """
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
    """The storage that ("storage", class, key, location, number of elements) declares, else None.

    Legacy files append None. A view of the storage, which torch of 2017 appended, is refused.
    """
    match items:
        case ("storage", Global(name), str(key), str(), int(count), *rest) if name in STORAGES:
            element = STORAGES[name]
            return Stored(key, count * element, element) if count >= 0 and rest in _WHOLE else None
    return None


_WHOLE: tuple[list[None], ...] = ([], [None])
