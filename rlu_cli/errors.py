"""Every way a command can end, in one place: exit statuses and the errors behind them.

An error says what is wrong, where, why, and what to do next, under a code that stays the same from
version to version (`docs/errors.md` lists them). E1xx is usage, E2xx an input, E900 a defect.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar


class Exit(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    GATE = 1
    USAGE = 2
    INPUT = 3
    UNSETTLED = 4
    EMPTY = 5
    INTERNAL = 70
    INTERRUPTED = 130


def printable(text: object, limit: int = 200) -> str:
    """`text` with control and formatting characters escaped and its length capped.

    Names that come from a file under inspection pass through here before they reach a terminal,
    a log or a report: no escape sequence, bidirectional override or line break gets through.
    """
    shown = "".join(
        c if unicodedata.category(c) not in _UNSAFE else c.encode("unicode_escape").decode()
        for c in str(text)[: limit + 1]  # a text from a file may be as long as the file
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class RluError(Exception):
    """Something the user must know and can act on; never shown with a traceback.

    code     stable identifier, such as "E203"
    message  what is wrong, naming the file or the option
    hint     what to do next
    why      the cause, if the message does not give it
    facts    further labelled lines, such as ("needs", "a.B, c.D")
    """

    exit_status: ClassVar[Exit] = Exit.INTERNAL

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str,
        why: str = "",
        facts: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.why = why
        self.facts = tuple(facts)

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON values, as `--format json` prints it."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "facts": [{"label": label, "text": text} for label, text in self.facts],
                "why": self.why,
                "next": self.hint,
                "exit_status": int(self.exit_status),
            }
        }

    def __str__(self) -> str:
        rows = [*self.facts, ("why", self.why), ("next", self.hint)]
        lines = [f"  {label + ':':<6} {text}" for label, text in rows if text]
        return "\n".join([f"error[{self.code}]: {self.message}", *lines])


class UsageError(RluError):
    """The command line or a setting is wrong or incomplete (E1xx)."""

    exit_status = Exit.USAGE


class InputError(RluError):
    """A file is missing, unreadable, refused, or does not fit (E2xx)."""

    exit_status = Exit.INPUT


def from_system(problem: BaseException) -> InputError | None:
    """What an operating system's refusal that nobody expected says; None for another exception.

    A full disk, a folder that is gone, a closed stream: E201; memory that does not suffice: E209.
    """
    text = printable(str(problem).partition("\n")[0])
    if isinstance(problem, MemoryError) or _MEMORY.search(str(problem)):
        return InputError(
            "E209",
            "the memory of this machine does not suffice",
            why=text,
            hint="use fewer or smaller images (--aux-per-class, --image-size), a smaller "
            "--batch-size, or a machine with more memory",
        )
    if isinstance(problem, OSError):
        named = [printable(n) for n in (problem.filename, problem.filename2) if n is not None]
        return InputError(
            "E201",
            f"cannot read or write {' or '.join(named) or 'a file or a stream'}",
            why=printable(problem.strerror or text or type(problem).__name__),
            hint="check that it exists, that you may use it, and that there is space; start again "
            "from a folder that exists",
        )
    return None


# How PyTorch and numpy say it: not every one of them raises a MemoryError.
_MEMORY = re.compile(
    "not enough memory|can't allocate memory|Unable to allocate|out of memory|bad allocation"
)


class InternalError(RluError):
    """A defect of rlu (E900)."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(
            "E900",
            f"internal error: {type(cause).__name__}: {cause}",
            why="this is a defect of rlu, not of your files",
            hint="run again with RLU_DEBUG=1 for the traceback, and report it",
        )
