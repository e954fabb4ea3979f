"""Targets of `rlu reproduce`: one table or figure of the paper each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from rlu_cli.experiments.lab import Lab


class Run(Protocol):
    """Reproduce the target called `name` and return the files written, the Markdown first.

    Raises Nothing when not a single row could be run.
    """

    def __call__(self, lab: Lab, name: str) -> list[Path]: ...


@dataclass(frozen=True)
class Target:
    """One table or figure.

    name    on the command line and in file names
    module  file of this folder whose `run` reproduces it; imported only then
    shows   short description
    """

    name: str
    module: str
    shows: str

    def load(self) -> Run:
        """The function that reproduces it."""
        return cast(Run, import_module(f"{__package__}.{self.module}").run)


class Nothing(Exception):
    """No row of a target could be run; the text gives the reason, such as missing data."""
