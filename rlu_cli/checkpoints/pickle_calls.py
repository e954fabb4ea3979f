"""What a pickle's calls make: tensors, arrays and dicts as descriptions, all else as opaque leaves.

Functions that are known must be called as `torch.save` calls them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from rlu_cli.checkpoints.pickle_globals import (
    DTYPES,
    NUMPY_CLASSES,
    NUMPY_MODULES,
    REBUILD,
    STORAGES,
    UNPLAIN,
)
from rlu_cli.checkpoints.pickle_machine import Machine
from rlu_cli.checkpoints.pickle_values import (
    LEAVES,
    Array,
    Blob,
    Encoded,
    Global,
    NumpyType,
    Opaque,
    Stored,
    Tuple,
    Unplain,
    View,
    raw_bytes,
)

_MAX_DIMS = 64
_NUMPY_TYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_ORDERS = ("<", ">", "|", "=")


class _Unusual(Exception):
    """The arguments are not those that the function is saved with."""


def call(machine: Machine, function: Any, args: Any) -> Any:
    """The value of a call; `args` is None for opcodes that create an object of a class."""
    name = function.name if isinstance(function, Global) else ""
    if name in _CALLS:
        try:
            if not isinstance(args, Tuple):
                raise _Unusual
            return _CALLS[name](machine, args.items)
        except (_Unusual, ValueError):
            machine.object_to(f"it calls {name} in an unusual way")
            return Opaque(name)
    if name in UNPLAIN:
        return Unplain(UNPLAIN[name])
    if not isinstance(function, Opaque) and name not in machine.scan.foreign:
        machine.object_to(f"it calls {name or 'something that is no function'}")
    given = args.items if isinstance(args, Tuple) else ()
    text = given[0] if len(given) == 1 and isinstance(given[0], str) else None
    return Opaque(name or "an object", text=text)


def _view(machine: Machine, args: tuple[Any, ...]) -> View | Unplain:
    """A view of a storage; torch would enlarge the storages of legacy files to fit one beyond."""
    match args:
        case (Unplain() as other, *_):
            return other
        case (Stored() as storage, int(offset), Tuple(items=shape), Tuple(items=strides), *rest):
            if len(shape) != len(strides) or len(shape) > _MAX_DIMS:
                raise _Unusual
            numbers = (offset, *shape, *strides)
            if not all(type(n) is int and n >= 0 for n in numbers):
                raise _Unusual
            named = [DTYPES[i.name] for i in rest if isinstance(i, Global) and i.name in DTYPES]
            dtype = named[0] if named else storage.dtype
            last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            if 0 not in shape and (last + 1) * dtype.itemsize > storage.nbytes:
                return Unplain("larger than its storage")
            return View(storage, offset, shape, strides, dtype, machine.fetch)
    raise _Unusual


def _parameter(_: Machine, args: tuple[Any, ...]) -> Any:
    """The data of a parameter; its gradient flag and hooks do not count."""
    if not args or not isinstance(args[0], LEAVES):
        raise _Unusual
    return args[0]


def _with_attributes(machine: Machine, args: tuple[Any, ...]) -> Any:
    """A tensor that was saved with attributes: (function, class, its arguments, attributes)."""
    match args:
        case (Global() as function, Global(), Tuple() as inner, *_) if function.name in _TENSORS:
            return call(machine, function, inner)
    return Opaque("a tensor of another class")


def _codec(_: Machine, args: tuple[Any, ...]) -> Encoded:
    """Bytes as protocol 2 writes them; another codec could run for as long as the file chooses."""
    match args:
        case (str() | Blob(text=True) as text, "latin1" | "latin-1"):
            return Encoded(text)
    raise _Unusual


def _no_bytes(_: Machine, args: tuple[Any, ...]) -> bytes:
    """No bytes, as protocol 2 writes them; called with a number it would reserve that many."""
    if args:
        raise _Unusual
    return b""


def _ordered(machine: Machine, args: tuple[Any, ...]) -> dict[Any, Any]:
    """A dict, empty or from a list of pairs, as Python 2 wrote them."""
    if not args:
        return {}
    made: dict[Any, Any] = {}
    match args:
        case (list() as pairs,):
            machine.spend(len(pairs))
            for pair in pairs:
                items = pair.items if isinstance(pair, Tuple) else pair
                if not isinstance(items, tuple | list) or len(items) != 2:
                    raise _Unusual
                put(made, *items)
            return made
        case (dict() as other,):
            return other
    raise _Unusual


def _collected(_: Machine, args: tuple[Any, ...]) -> Any:
    """A set as the list that it was made from."""
    if len(args) > 1 or not all(isinstance(one, list | Tuple) for one in args):
        raise _Unusual
    return args[0] if args else []


def _size(_: Machine, args: tuple[Any, ...]) -> Tuple:
    match args:
        case (Tuple() as size,) if len(size.items) <= _MAX_DIMS:
            if all(type(n) is int for n in size.items):
                return size
    raise _Unusual


def _numpy_type(_: Machine, args: tuple[Any, ...]) -> NumpyType | Opaque:
    code = args[0] if args else None
    if isinstance(code, str) and _NUMPY_TYPE.fullmatch(code):
        return NumpyType(code)
    return Opaque("numpy.dtype")


def _scalar(_: Machine, args: tuple[Any, ...]) -> Any:
    """A number of numpy as a plain one."""
    match args:
        case (NumpyType() as kind, data):
            dtype = kind.dtype()
            return Array(kind, (), data=raw_bytes(data, dtype.itemsize)).array().item()
    return Opaque("a numpy scalar")


def _from_buffer(_: Machine, args: tuple[Any, ...]) -> Any:
    """An array as protocol 5 writes it: (bytes, type, shape, order)."""
    match args:
        case (data, NumpyType() as kind, Tuple() as shape, str(order)):
            return Array(kind, _shape(shape), order == "F", data)
    return Array()


def _shape(value: Any) -> tuple[int, ...]:
    items = value.items if isinstance(value, Tuple) else None
    if items is None or len(items) > _MAX_DIMS or not all(type(n) is int and n >= 0 for n in items):
        raise _Unusual
    return tuple(items)


_Call = Callable[[Machine, tuple[Any, ...]], Any]
_TENSORS: dict[str, _Call] = {
    **dict.fromkeys(REBUILD, _view),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_CALLS: dict[str, _Call] = {
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "torch.Size": _size,
    "torch.device": lambda machine, args: Opaque("torch.device"),
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda machine, args: {},
    "collections.Counter": lambda machine, args: _ordered(machine, args),
    "__builtin__.set": _collected,
    "builtins.set": _collected,
    "__builtin__.frozenset": _collected,
    "builtins.frozenset": _collected,
    "_codecs.encode": _codec,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
    "numpy.dtype": _numpy_type,
    **{f"{module}.multiarray._reconstruct": lambda machine, args: Array()
       for module in NUMPY_MODULES},
    **{f"{module}.multiarray.scalar": _scalar for module in NUMPY_MODULES},
    **{f"{module}.numeric._frombuffer": _from_buffer for module in NUMPY_MODULES},
}  # fmt: skip

# Names that are no reason to call a pickle foreign.
KNOWN = frozenset(_CALLS) | frozenset(STORAGES) | frozenset(DTYPES) | frozenset(UNPLAIN)
KNOWN |= NUMPY_CLASSES


def set_state(machine: Machine, target: Any, state: Any) -> None:
    """Follow BUILD, which gives an object its attributes."""
    if isinstance(target, Opaque):
        target.state = state
    elif isinstance(target, NumpyType):
        match state:
            case Tuple(items=(int(), str(order), *_)) if order in _ORDERS:
                target.order = order
            case _:
                machine.object_to("it describes a numpy type in an unusual way")
    elif isinstance(target, Array):
        _fill(machine, target, state)
    elif not isinstance(target, dict):
        machine.object_to("it sets attributes of something that has none")


def _fill(machine: Machine, target: Array, state: Any) -> None:
    match state:
        case Tuple(items=(int(), shape, kind, bool(fortran), data)):
            try:
                target.shape = _shape(shape)
            except _Unusual:
                machine.object_to("it describes a numpy array in an unusual way")
                return
            target.kind = kind if isinstance(kind, NumpyType) else None
            target.fortran, target.data = fortran, data
        case _:
            machine.object_to("it describes a numpy array in an unusual way")


def put(target: dict[Any, Any], key: Any, value: Any) -> None:
    """Enter a pair; a key that is slow to compare, or that many others collide with, is opaque."""
    plain = isinstance(key, str | bool | Opaque) or key is None
    target[key if plain or (type(key) is int and abs(key) < 2**60) else Opaque("a key")] = value


def stored_as(items: tuple[Any, ...]) -> Stored | Unplain | Global | None:
    """The storage that ("storage", class, key, location, number of elements) declares, else None.

    Legacy files append None. A view of the storage, which torch of 2017 appended, is refused. They
    also keep the source of modules that were saved whole, which stands for their class.
    """
    match items:
        case ("module", Global() as kind, _, _):
            return kind
        case ("storage", Global(name=name), str(), *_) if name in UNPLAIN:
            return Unplain(UNPLAIN[name])
        case ("storage", Global(name=name), str(key), str(), int(count), *rest) if name in STORAGES:
            dtype = STORAGES[name]
            whole = count >= 0 and type(count) is int and rest in _WHOLE
            return Stored(key, count * dtype.itemsize, dtype) if whole else None
    return None


_WHOLE: tuple[list[None], ...] = ([], [None])
