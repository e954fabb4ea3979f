"""The files of a run folder: which there are, and those that can be read as text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlu_cli.errors import InputError, printable
from rlu_cli.regular_files import read_regular
from rlu_cli.runs.yaml_text import parse_yaml
from rlu_cli.toml_text import parse_toml

_MAX_FILES = 20_000
_MAX_DEPTH = 8
_MAX_TEXT = 2**22  # a trainer's log of its steps is in one of them
_MAX_TOML = 2**20
_MAX_YAML = 2**17  # its parser takes a second for that much


@dataclass(frozen=True)
class RunFolder:
    """A folder and the names of its files, relative to it and with slashes, shortest paths first.

    Links are not listed: they may lead out of it.
    """

    path: Path
    files: tuple[str, ...]

    def named(self, *names: str) -> list[str]:
        """The files that have one of these names, in any folder."""
        return [file for file in self.files if file.rpartition("/")[2] in names]

    def ending(self, *suffixes: str) -> list[str]:
        return [file for file in self.files if file.endswith(suffixes)]

    def file(self, name: str) -> Path:
        return self.path / name

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file; empty for another value. Raises InputError E201."""
        return self._table(name, json.loads, _MAX_TEXT)

    def toml(self, name: str) -> dict[str, Any]:
        """The table in a TOML file. Raises InputError E201."""
        return self._table(name, parse_toml, _MAX_TOML)

    def yaml(self, name: str) -> dict[str, Any]:
        """The mapping in a YAML file; empty for another value. Raises InputError E201, E107."""
        return self._table(name, parse_yaml, _MAX_YAML)

    def text(self, name: str, limit: int = _MAX_TEXT) -> str:
        """The text of a regular file. Raises InputError E201."""
        try:
            return read_regular(self.file(name), limit).decode("utf-8")
        except (OSError, ValueError) as problem:
            raise _unreadable(self.file(name), problem) from None

    def _table(self, name: str, parse: Callable[[str], Any], limit: int) -> dict[str, Any]:
        text = self.text(name, limit)
        try:
            content = parse(text)
        except (ValueError, RecursionError) as problem:
            raise _unreadable(self.file(name), problem) from None
        return content if isinstance(content, dict) else {}


def open_run_folder(path: Path) -> RunFolder:
    """List a run folder. Raises InputError E201 if it is none, E232 if it is too large."""
    try:
        there = path.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        there = False
    if not there:
        raise InputError(
            "E201",
            f"there is no run folder {printable(path)}",
            hint="give the folder that the run was written to",
        )
    found: list[str] = []
    for name in _walk(path, "", _MAX_DEPTH):
        found.append(name)
        if len(found) > _MAX_FILES:
            raise InputError(
                "E232",
                f"{printable(path)} has over {_MAX_FILES:,} files",
                hint="give the folder of one run",
            )
    return RunFolder(path, tuple(sorted(found, key=lambda name: (name.count("/"), name))))


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as problem:
        raise _unreadable(folder, problem) from None
    for entry in entries:
        if entry.is_file(follow_symlinks=False):
            yield prefix + entry.name
        elif depth and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth - 1)


def _unreadable(path: Path, problem: Exception) -> InputError:
    return InputError(
        "E201",
        f"cannot read {printable(path)}",
        why=printable(str(problem).partition("\n")[0] or type(problem).__name__),
        hint="repair the file or move it away",
    )
