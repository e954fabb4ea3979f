"""A pickled dictionary of byte arrays, numbers and names, read without unpickling.

The opcodes are followed on a separate stack: nothing is imported and nothing in the file is called.
The four functions that numpy needs to write an array of bytes have inert stand-ins; a file that
names any other function is refused.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rlu_cli.datasets.pickled_arrays import (
    CALLS,
    NDARRAY,
    Array,
    DType,
    Global,
    NotPlain,
    bytes_array,
)
from rlu_cli.errors import InputError, printable

MAX_OPCODES = 4_000_000
Texts = str | bytes


@dataclass
class _Machine:
    """Stack machine that follows the opcodes.

    size     bytes of the pickle
    stack    values pushed and not yet popped
    below    the stacks below the marks
    memo     values by memo index
    foreign  names of functions and classes that are not numpy's
    encoded  bytes encoded from text so far
    """

    size: int
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    foreign: dict[str, None] = field(default_factory=dict)
    encoded: int = 0


def read_pickled(data: bytes, path: Path) -> dict[str, Any]:
    """The dictionary that `data`, from the file `path`, holds, its keys as text.

    Python 2's strings come out as bytes, arrays as uint8.
    Raises InputError E203 when the pickle names anything but numpy's byte arrays, E202 when it is
    corrupt, too long or no such dictionary.
    """
    machine = _Machine(len(data))
    try:
        value = _follow(machine, data)
        if machine.foreign or not isinstance(value, dict):
            raise NotPlain("it is not a dictionary of plain data")
        return {_text(key): _plain(item) for key, item in value.items()}
    except Exception as problem:  # invalid opcode sequences may raise anything
        if machine.foreign:
            raise _foreign(path, machine) from problem
        raise _broken(path, problem) from problem


def _follow(machine: _Machine, data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickletools, on odd escapes in names
        steps = pickletools.genops(data)
        for opcode, arg, _ in islice(steps, MAX_OPCODES):
            handler = _HANDLERS.get(opcode.name)
            if handler is None:
                _name_foreign(machine, chain([(opcode, arg, None)], islice(steps, MAX_OPCODES)))
                raise NotPlain(f"no plain batch has the opcode {opcode.name}")
            handler(machine, arg)
        if next(steps, None) is not None:
            raise NotPlain(f"it has more than {MAX_OPCODES:,} opcodes")
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
        raise NotPlain("a key is not text")
    return key.decode("latin-1") if isinstance(key, bytes) else key


def _plain(item: Any) -> Any:
    return item.value if isinstance(item, Array) else item


def _name_foreign(machine: _Machine, steps: Iterable[tuple[Any, Any, Any]]) -> None:
    """Note what the remaining opcodes would import or create, by name if they have one."""
    for opcode, arg, _ in steps:
        if opcode.name in _MAKERS:
            _global(machine, arg.replace(" ", ".", 1) if isinstance(arg, str) else opcode.name)


_MAKERS = frozenset(
    {"GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
)


def _pop(machine: _Machine, count: int) -> list[Any]:
    start = len(machine.stack) - count
    if start < 0:
        raise NotPlain("it pops more values than it pushed")
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
    items = _pop_to_mark(machine)
    machine.stack.append(tuple(items))


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, arg: machine.stack.append(tuple(_pop(machine, count)))


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise NotPlain("it appends to something that is no list")
    target.extend(items)


def _set(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise NotPlain("it sets an item of something that is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, Texts):  # hashing a deep tuple can overflow the C stack
            raise NotPlain("a key is not text")
        target[key] = value


def _global(machine: _Machine, name: str) -> None:
    if name not in CALLS and name != NDARRAY.name:
        machine.foreign[name] = None
    machine.stack.append(Global(name))


def _stack_global(machine: _Machine, arg: Any) -> None:
    module, name = _pop(machine, 2)
    _global(machine, f"{_text(module)}.{_text(name)}")


def _reduce(machine: _Machine, arg: Any) -> None:
    function, args = _pop(machine, 2)
    if isinstance(function, Global) and function.name in machine.foreign:
        machine.stack.append(None)  # refused at the end, when all such names are known
        return
    if not isinstance(function, Global) or function.name not in CALLS:
        raise NotPlain("it calls something that is no function")
    made = CALLS[function.name](*args)
    machine.encoded += len(made) if isinstance(made, bytes) else 0
    if machine.encoded > machine.size:  # one text encoded again and again
        raise NotPlain("it encodes more bytes than the file has")
    machine.stack.append(made)


def _build(machine: _Machine, arg: Any) -> None:
    target, state = machine.stack[-2], machine.stack.pop()
    if isinstance(target, Array):
        target.value = bytes_array(state)
    elif not isinstance(target, DType) and not machine.foreign:
        raise NotPlain("it sets the state of an object that has none")


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
