"""Follow a pickle without unpickling: its opcodes move inert values, and run nothing.

An object of a class that is not known becomes an opaque leaf; the tensors beside it are still read.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

from rlu_cli.checkpoints.pickle_calls import KNOWN, call, put, set_state, stored_as
from rlu_cli.checkpoints.pickle_machine import Machine, Scan, ScanLimit
from rlu_cli.checkpoints.pickle_opcodes import opcodes
from rlu_cli.checkpoints.pickle_values import Fetch, Global, Opaque, Stored, Tuple


def scan_pickle(stream: io.BytesIO, fetch: Fetch) -> Scan:
    """Follow one pickle of `stream`, and leave `stream` at the pickle's end.

    fetch  reads the bytes of a storage when a tensor of the result is wanted

    Raises ScanLimit above the limits and any exception on invalid data, unless foreign globals were
    found before: what they are is then the better reason to refuse the file.
    """
    machine = Machine(Scan(), fetch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools, on odd escapes in names
            for name, arg in opcodes(stream, machine):
                _HANDLERS[name](machine, arg)
        (machine.scan.value,) = machine.stack or [None]
    except ScanLimit:
        raise
    except Exception:
        if not machine.scan.foreign:
            raise
    return machine.scan


def _push(machine: Machine, arg: Any) -> None:
    machine.stack.append(arg)


def _value(value: Any) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


def _nothing(machine: Machine, _: Any) -> None:
    """PROTO, FRAME, STOP and the like move no value."""


def _text(machine: Machine, arg: Any) -> None:
    """Python 2 text, whose encoding is not stated: torch could decode it to another name."""
    if isinstance(arg, str) and not arg.isascii():
        machine.object_to("it holds Python 2 text that is not ASCII")
    machine.stack.append(arg)


def _recall(machine: Machine, arg: int) -> None:
    machine.stack.append(machine.memo[arg])


def _duplicate(machine: Machine, _: Any) -> None:
    machine.stack.append(machine.stack[-1])


def _pop(machine: Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_to_mark()


def _pop_mark(machine: Machine, _: Any) -> None:
    machine.pop_to_mark()


def _name(machine: Machine, name: str) -> None:
    if name not in KNOWN:
        machine.scan.foreign[name] = None
    machine.stack.append(Global(name))


def _global(machine: Machine, arg: str) -> None:
    _name(machine, arg.replace(" ", ".", 1))


def _stack_global(machine: Machine, _: Any) -> None:
    parts = machine.pop_last(2)
    known = all(isinstance(part, str) for part in parts)
    name = ".".join(parts) if known else "(a name the file computes)"
    machine.spend(0, len(name))
    _name(machine, name)


def _registered(machine: Machine, arg: int) -> None:
    _name(machine, f"(entry {arg} of Python's extension registry)")


def _instance(machine: Machine, arg: str) -> None:
    machine.pop_to_mark()
    _global(machine, arg)
    machine.stack.append(call(machine, machine.pop_last(1)[0], None))


def _marked_tuple(machine: Machine, _: Any) -> None:
    machine.push_tuple(machine.pop_to_mark())


def _short_tuple(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push_tuple(machine.pop_last(count))


def _empty_list(machine: Machine, _: Any) -> None:
    machine.stack.append([])


def _marked_list(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()  # first: it brings back the stack below
    machine.stack.append(items)


def _empty_dict(machine: Machine, _: Any) -> None:
    machine.stack.append({})


def _marked_dict(machine: Machine, _: Any) -> None:
    made: dict[Any, Any] = {}
    _enter(machine, made, machine.pop_to_mark())
    machine.stack.append(made)


def _append(machine: Machine, _: Any) -> None:
    _extend(machine, machine.pop_last(1))


def _appends(machine: Machine, _: Any) -> None:
    _extend(machine, machine.pop_to_mark())


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Opaque):
        machine.object_to("it appends to something that is no list")


def _set_item(machine: Machine, _: Any) -> None:
    _enter(machine, machine.stack[-3], machine.pop_last(2))


def _set_items(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    _enter(machine, machine.stack[-1], items)


def _enter(machine: Machine, target: Any, items: list[Any]) -> None:
    if isinstance(target, Opaque):
        target.items = {} if target.items is None else target.items
        target = target.items
    if not isinstance(target, dict) or len(items) % 2:
        machine.object_to("it sets an entry of something that is no dict")
        return
    for key, value in zip(items[::2], items[1::2], strict=True):
        put(target, key, value)


def _reduce(machine: Machine, _: Any) -> None:
    function, args = machine.pop_last(2)
    machine.stack.append(call(machine, function, args))


def _new_object(extra: int) -> Callable[[Machine, Any], None]:
    def run(machine: Machine, _: Any) -> None:
        machine.stack.append(call(machine, machine.pop_last(2 + extra)[0], None))

    return run


def _old_object(machine: Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.stack.append(call(machine, items[0], None))


def _build(machine: Machine, _: Any) -> None:
    (state,) = machine.pop_last(1)
    set_state(machine, machine.stack[-1], state)


def _persistent(machine: Machine, _: Any) -> None:
    (key,) = machine.pop_last(1)
    stored = stored_as(key.items) if isinstance(key, Tuple) else None
    if isinstance(stored, Stored):
        known = machine.scan.storages.setdefault(stored.key, stored)
        if known.nbytes != stored.nbytes:
            machine.object_to("it declares two sizes for one storage")
    elif stored is None:
        machine.object_to("it declares a storage in an unusual way")
    machine.stack.append(stored or Opaque("a storage"))


_Handler = Callable[[Machine, Any], None]
_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP", "READONLY_BUFFER"), _nothing),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _push),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), _push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _text),
    "NEXT_BUFFER": lambda machine, _: machine.stack.append(Opaque("a buffer beside the file")),
    "NONE": _value(None),
    "NEWTRUE": _value(True),
    "NEWFALSE": _value(False),
    "MARK": lambda machine, _: machine.mark(),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _duplicate,
    "PUT": Machine.remember,
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GET": _recall,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _registered),
    "INST": _instance,
    "EMPTY_TUPLE": _short_tuple(0),
    "TUPLE": _marked_tuple,
    "TUPLE1": _short_tuple(1),
    "TUPLE2": _short_tuple(2),
    "TUPLE3": _short_tuple(3),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), _empty_list),
    **dict.fromkeys(("LIST", "FROZENSET"), _marked_list),
    "EMPTY_DICT": _empty_dict,
    "DICT": _marked_dict,
    "APPEND": _append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _appends),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "REDUCE": _reduce,
    "NEWOBJ": _new_object(0),
    "NEWOBJ_EX": _new_object(1),
    "OBJ": _old_object,
    "BUILD": _build,
    "PERSID": lambda machine, _: machine.object_to("it names its storages as text"),
    "BINPERSID": _persistent,
}
