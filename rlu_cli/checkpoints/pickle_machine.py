"""Stack machine that follows a pickle: inert values, and a record of what the pickle names.

Nothing is imported, called or allocated for the file; functions are names, objects are opaque.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlu_cli.checkpoints.pickle_values import Fetch, Stored, Tuple

MAX_OPCODES = 1_000_000
MAX_TEXT = 64 * 2**20  # all names and short texts, in bytes
_MAX_TUPLE = 100_000


class ScanLimit(Exception):
    """The pickle is larger than any list of tensors."""


@dataclass
class Scan:
    """What a pickle holds.

    foreign   globals that plain tensors do not need, in order of appearance
    misuse    its first operation that no program uses to save tensors
    storages  the storages it declares, by key
    value     the final object, of inert values
    """

    foreign: dict[str, None] = field(default_factory=dict)
    misuse: str = ""
    storages: dict[str, Stored] = field(default_factory=dict)
    value: Any = None


@dataclass
class Machine:
    """A pickle's stack, the stacks below its marks, its memo, and what it has spent so far.

    fetch  how the bytes of its storages are read later
    steps  opcodes followed and items copied
    text   bytes of text kept
    """

    scan: Scan
    fetch: Fetch
    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    steps: int = 0
    text: int = 0

    def spend(self, steps: int, text: int = 0) -> None:
        """Raises ScanLimit when the budget of steps or of text is used up."""
        self.steps += steps
        self.text += text
        if self.steps > MAX_OPCODES:
            raise ScanLimit(f"its pickle has more than {MAX_OPCODES:,} steps")
        if self.text > MAX_TEXT:
            raise ScanLimit(f"the names in its pickle have more than {MAX_TEXT:,} bytes")

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
