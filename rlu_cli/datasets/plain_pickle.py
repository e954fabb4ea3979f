"""A pickled dictionary of byte arrays, numbers and names, read without unpickling.

The opcodes are followed on a stack of our own: nothing is imported and nothing of the file is
called. Of the functions a pickle may name, the four that numpy needs to write an array of bytes
have an inert stand-in here; a file that names any other is refused.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlu_cli.errors import InputError, printable

MAX_OPCODES = 4_000_000
Texts = str | bytes


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _DType:
    name: Any


@dataclass
class _Array:
    value: NDArray[np.uint8] | None = None


class _Stop(Exception):
    """The pickle goes on in a way that no plain one does."""


@dataclass
class _Machine:
    """The stack, the stacks below its marks, the memo, and the names that are not numpy's."""

    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    foreign: dict[str, None] = field(default_factory=dict)


def read_pickled(data: bytes, path: Path) -> dict[str, Any]:
    """The dictionary that `data`, from the file `path`, holds, its keys as text.

    Python 2's strings come out as bytes, arrays as uint8.
    Raises InputError E203 when the pickle names anything but numpy's byte arrays, E205 when it is
    too long, E202 when it is broken or holds something else.
    """
    machine = _Machine()
    try:
        value = _follow(machine, data)
        if machine.foreign:
            raise _Stop("it names what is not plain data")
        return {_text(key): _plain(item) for key, item in value.items()}
    except InputError:
        raise
    except Exception as problem:  # opcodes in a senseless order fail in any way
        if machine.foreign:
            raise _foreign(path, machine) from problem
        raise _broken(path, problem) from problem


def _follow(machine: _Machine, data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickletools, on odd escapes in names
        for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
            if count > MAX_OPCODES:
                raise _Stop(f"it has more than {MAX_OPCODES:,} opcodes")
            handler = _HANDLERS.get(opcode.name)
            if handler is None:
                _name_foreign(machine, opcode.name, arg)
                raise _Stop(f"opcode {opcode.name}")
            handler(machine, arg)
    (value,) = machine.stack
    return value


def _foreign(path: Path, machine: _Machine) -> InputError:
    names = [printable(name, 80) for name in machine.foreign]
    more = f"  ({len(names) - 5} more)" if len(names) > 5 else ""
    return InputError(
        "E203",
        f"refused to load {printable(path)}: it contains Python objects, not only images",
        facts=[("needs", ", ".join(names[:5]) + more)],
        why="loading them would run code from the file",
        hint="take the files from the data set's own site, or save images and labels as an .npz",
    )


def _broken(path: Path, problem: Exception) -> InputError:
    return InputError(
        "E202",
        f"{printable(path)} is truncated, corrupt, or no pickled batch of images",
        why=printable(problem),
        hint="unpack the data set's archive again",
    )


def _text(key: Any) -> str:
    if not isinstance(key, Texts):
        raise _Stop("a key is not text")
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _plain(item: Any) -> Any:
    return item.value if isinstance(item, _Array) else item


def _name_foreign(machine: _Machine, opcode: str, arg: Any) -> None:
    """An opcode that makes an object: by the name it has, where it has one."""
    if opcode in _MAKERS:
        machine.foreign[arg.replace(" ", ".", 1) if isinstance(arg, str) else opcode] = None


_MAKERS = frozenset(
    {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
)


def _pop(machine: _Machine, count: int) -> list[Any]:
    start = len(machine.stack) - count
    if start < 0:
        raise _Stop("it takes more values than it made")
    items = machine.stack[start:]
    del machine.stack[start:]
    return items


def _pop_to_mark(machine: _Machine) -> list[Any]:
    items, machine.stack = machine.stack, machine.below.pop()
    return items


def _ignore(machine: _Machine, arg: Any) -> None:
    pass


def _push(machine: _Machine, arg: Any) -> None:
    machine.stack.append(arg)


def _push_bytes(machine: _Machine, arg: str) -> None:
    machine.stack.append(arg.encode("latin-1"))  # pickletools shows Python 2's strings as text


def _mark(machine: _Machine, arg: Any) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _remember(machine: _Machine, arg: int | None) -> None:
    machine.memo[len(machine.memo) if arg is None else arg] = machine.stack[-1]


def _recall(machine: _Machine, arg: int) -> None:
    machine.stack.append(machine.memo[arg])


def _tuple(machine: _Machine, arg: Any) -> None:
    machine.stack.append(tuple(_pop_to_mark(machine)))


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, arg: machine.stack.append(tuple(_pop(machine, count)))


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise _Stop("it appends to what is no list")
    target.extend(items)


def _set(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise _Stop("it sets an item of what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, Texts):  # hashing a deep tuple can overflow the C stack
            raise _Stop("a key is not text")
        target[key] = value


def _global(machine: _Machine, name: str) -> None:
    if name not in _CALLS and name != _NDARRAY:
        machine.foreign[name] = None
    machine.stack.append(_Global(name))


def _stack_global(machine: _Machine, arg: Any) -> None:
    module, name = _pop(machine, 2)
    _global(machine, f"{_text(module)}.{_text(name)}")


def _reduce(machine: _Machine, arg: Any) -> None:
    function, args = _pop(machine, 2)
    if isinstance(function, _Global) and function.name in machine.foreign:
        machine.stack.append(None)  # refused at the end, when all such names are known
    elif isinstance(function, _Global) and function.name in _CALLS and isinstance(args, tuple):
        machine.stack.append(_CALLS[function.name](*args))
    else:
        raise _Stop("it calls what is no function")


def _array(kind: Any, shape: Any, code: Any) -> _Array:
    if kind != _Global(_NDARRAY):
        raise _Stop("an array is of a class of its own")
    return _Array()


def _dtype(name: Any, align: Any, copy: Any) -> _DType:
    return _DType(name)


def _encoded(text: Any, codec: Any) -> bytes:
    """How protocol 2 writes bytes from Python 3; another codec could run for long."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise _Stop("it encodes text in an unusual way")
    return text.encode("latin-1")


_NDARRAY = "numpy.ndarray"
_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.core.multiarray._reconstruct": _array,
    "numpy._core.multiarray._reconstruct": _array,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encoded,
}


def _build(machine: _Machine, arg: Any) -> None:
    target, state = machine.stack[-2], machine.stack.pop()
    if isinstance(target, _Array):
        target.value = _bytes_array(state)
    elif not isinstance(target, _DType) and not machine.foreign:
        raise _Stop("it gives a state to what has none")


def _bytes_array(state: Any) -> NDArray[np.uint8]:
    """(version, shape, dtype, Fortran order, content) to uint8 of that shape."""
    match state:
        case (_, tuple(shape), _DType("u1" | b"u1"), int(fortran), bytes(content)) if all(
            type(n) is int and n >= 0 for n in shape
        ):
            if math.prod(shape) != len(content):
                raise _Stop(f"an array of shape {shape} has {len(content):,} bytes")
            return np.frombuffer(content, dtype=np.uint8).reshape(
                shape, order="F" if fortran else "C"
            )
    raise _Stop("an array is not of plain bytes (uint8)")


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _ignore),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _push_bytes),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    "NONE": lambda machine, arg: machine.stack.append(None),
    "NEWTRUE": lambda machine, arg: machine.stack.append(True),
    "NEWFALSE": lambda machine, arg: machine.stack.append(False),
    "EMPTY_DICT": lambda machine, arg: machine.stack.append({}),
    "EMPTY_LIST": lambda machine, arg: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, arg: machine.stack.append(()),
    "MARK": _mark,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": lambda machine, arg: _append(machine, _pop(machine, 1)),
    "APPENDS": lambda machine, arg: _append(machine, _pop_to_mark(machine)),
    "SETITEM": lambda machine, arg: _set(machine, _pop(machine, 2)),
    "SETITEMS": lambda machine, arg: _set(machine, _pop_to_mark(machine)),
    "GLOBAL": lambda machine, arg: _global(machine, arg.replace(" ", ".", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}
