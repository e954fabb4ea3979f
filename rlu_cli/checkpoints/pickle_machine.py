"""Stack machine of the pickle scan: inert values, and a record of what the pickle needs.

Nothing is imported, called or allocated; functions are names, tensors are opaque.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_OPCODES = 4_000_000
# Tuples can be dictionary keys; hashing a deep one overflows the C stack, hashing one that repeats
# itself takes exponential time. Their total size, repetitions counted, is therefore bounded.
_MAX_TUPLE = 10_000


class ScanLimit(Exception):
    """The pickle is larger than any list of tensors."""


@dataclass(frozen=True)
class Stored:
    """One storage the pickle declares: its key, its size and that of an element, in bytes."""

    key: str
    nbytes: int
    element: int


@dataclass
class Scan:
    """What a pickle would do.

    protocol  of the pickle
    foreign   globals that plain tensors do not need, in order of appearance
    unplain   tensors it builds that are not plain: "quantised tensors", …
    misuse    its first operation that no program uses to save tensors
    storages  the storages it declares
    value     the final object, if that is a number or a string
    """

    protocol: int = 0
    foreign: dict[str, None] = field(default_factory=dict)
    unplain: dict[str, None] = field(default_factory=dict)
    misuse: str = ""
    storages: list[Stored] = field(default_factory=list)
    value: int | str | None = None


@dataclass(frozen=True)
class Global:
    """A function or class, by its name."""

    name: str


@dataclass(frozen=True)
class Called:
    """The result of a call of an allowed global."""

    name: str


@dataclass(frozen=True)
class Tuple:
    """A tuple; `weight` counts all nested items, each as often as it occurs."""

    items: tuple[Any, ...]
    weight: int


OPAQUE = object()


@dataclass
class Machine:
    """A pickle's stack, the stacks below its marks, and its memo."""

    scan: Scan
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop_last(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise ValueError("the pickle pops more values than it pushed")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push_tuple(self, items: Sequence[Any]) -> None:
        weight = 1 + sum(item.weight if isinstance(item, Tuple) else 1 for item in items)
        if weight > _MAX_TUPLE:
            raise ScanLimit(f"its pickle holds a tuple of more than {_MAX_TUPLE:,} values")
        self.stack.append(Tuple(tuple(items), weight))

    def remember(self, index: int) -> None:
        if not 0 <= index <= MAX_OPCODES:
            raise ScanLimit(f"its pickle uses the memo index {index:,}")
        self.memo[index] = self.stack[-1]

    def object_to(self, what: str) -> None:
        self.scan.misuse = self.scan.misuse or what
