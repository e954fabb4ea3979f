"""Static scan of a pickle: its opcodes are followed, never executed.

The globals that a file needs and the storages that it declares are thus known before torch opens
the file.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

from rlu_cli.checkpoints.pickle_calls import call, stored_as
from rlu_cli.checkpoints.pickle_globals import CALLED, NAMED, UNPLAIN
from rlu_cli.checkpoints.pickle_machine import (
    MAX_OPCODES,
    OPAQUE,
    Called,
    Global,
    Machine,
    Scan,
    ScanLimit,
    Tuple,
)

MAX_PICKLE_BYTES = 64 * 2**20


def scan_pickle(file: BinaryIO) -> Scan:
    """Scan one pickle of `file`, and leave `file` at the pickle's end.

    Raises ScanLimit above the limits and any exception on invalid data, unless foreign globals were
    found before: they alone are reason to refuse the file.
    """
    machine = Machine(Scan())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools, on odd escapes in names
            _follow(machine, file)
    except Exception:
        if not machine.scan.foreign:
            raise
    return machine.scan


def _follow(machine: Machine, file: BinaryIO) -> None:
    for count, (opcode, arg, _) in enumerate(pickletools.genops(file)):
        if count > MAX_OPCODES:
            raise ScanLimit(f"its pickle has more than {MAX_OPCODES:,} opcodes")
        handler = _HANDLERS.get(opcode.name)
        if handler is None:
            _move(machine, opcode, arg)
        else:
            handler(machine, arg)
    (value,) = machine.stack or [None]
    machine.scan.value = value if isinstance(value, int | str) else None


def _move(machine: Machine, opcode: pickletools.OpcodeInfo, arg: Any) -> None:
    """Opcodes that only push or drop values, as `pickletools` describes them."""
    needs = [kind.name for kind in opcode.stack_before]
    if "mark" in needs:
        machine.pop_to_mark()
        needs = needs[: needs.index("mark")]
    if opcode.name in _FILLS:
        machine.pop_last(len(needs) - 1)
        return
    if opcode.name != "STOP":
        machine.pop_last(len(needs))
    made = OPAQUE if needs or arg is None else arg
    machine.stack.extend(made for _ in opcode.stack_after)


_FILLS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"})


def _protocol(machine: Machine, arg: int) -> None:
    machine.scan.protocol = max(machine.scan.protocol, arg)


def _text(machine: Machine, arg: str) -> None:
    """Python 2 text, whose encoding is not stated: torch could decode it to another name."""
    if not arg.isascii():
        machine.object_to("it holds Python 2 text that is not ASCII")
    machine.stack.append(arg)


def _recall(machine: Machine, arg: int) -> None:
    machine.stack.append(machine.memo[arg])


def _duplicate(machine: Machine, _: None) -> None:
    machine.stack.append(machine.stack[-1])


def _name(machine: Machine, name: str) -> None:
    if name in UNPLAIN:
        machine.scan.unplain[UNPLAIN[name]] = None
    elif name not in CALLED and name not in NAMED:
        machine.scan.foreign[name] = None
    machine.stack.append(Global(name))


def _global(machine: Machine, arg: str) -> None:
    _name(machine, arg.replace(" ", ".", 1))


def _stack_global(machine: Machine, _: None) -> None:
    parts = machine.pop_last(2)
    known = all(isinstance(part, str) for part in parts)
    _name(machine, ".".join(parts) if known else "(a name the file computes)")


def _registered(machine: Machine, arg: int) -> None:
    _name(machine, f"(entry {arg} of Python's extension registry)")


def _instance(machine: Machine, arg: str) -> None:
    machine.pop_to_mark()
    _global(machine, arg)
    call(machine, machine.pop_last(1)[0], None)


def _marked_tuple(machine: Machine, _: None) -> None:
    machine.push_tuple(machine.pop_to_mark())


def _short_tuple(count: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push_tuple(machine.pop_last(count))


def _reduce(machine: Machine, _: None) -> None:
    function, args = machine.pop_last(2)
    call(machine, function, args)


def _new_object(extra: int) -> Callable[[Machine, Any], None]:
    def run(machine: Machine, _: None) -> None:
        call(machine, machine.pop_last(2 + extra)[0], None)

    return run


def _old_object(machine: Machine, _: None) -> None:
    call(machine, machine.pop_to_mark()[0], None)


def _build(machine: Machine, _: None) -> None:
    machine.pop_last(1)
    target = machine.stack[-1]
    if isinstance(target, Called) and target.name != "collections.OrderedDict":
        machine.object_to(f"it sets attributes of a {target.name}")


def _persistent(machine: Machine, _: Any) -> None:
    (key,) = machine.pop_last(1)
    stored = stored_as(key.items) if isinstance(key, Tuple) else None
    if stored is None:
        machine.object_to("it declares a storage in an unusual way")
    else:
        machine.scan.storages.append(stored)
    machine.stack.append(stored or OPAQUE)


_HANDLERS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": _protocol,
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: machine.stack.append(None),
    "PUT": Machine.remember,
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
    "MEMOIZE": lambda machine, _: machine.remember(len(machine.memo)),
    "GET": _recall,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "STRING": _text,
    "BINSTRING": _text,
    "SHORT_BINSTRING": _text,
    "DUP": _duplicate,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "EXT1": _registered,
    "EXT2": _registered,
    "EXT4": _registered,
    "INST": _instance,
    "EMPTY_TUPLE": _short_tuple(0),
    "TUPLE": _marked_tuple,
    "TUPLE1": _short_tuple(1),
    "TUPLE2": _short_tuple(2),
    "TUPLE3": _short_tuple(3),
    "REDUCE": _reduce,
    "NEWOBJ": _new_object(0),
    "NEWOBJ_EX": _new_object(1),
    "OBJ": _old_object,
    "BUILD": _build,
    "PERSID": lambda machine, _: machine.object_to("it names its storages as text"),
    "BINPERSID": _persistent,
}
