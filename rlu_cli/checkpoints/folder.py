"""A checkpoint that is a folder: its files are opened one by one, as files under inspection."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlu_cli.checkpoints.source import (
    Content,
    Source,
    cause,
    corrupt,
    malformed,
    open_source,
    too_large,
)
from rlu_cli.errors import printable

_MAX_OPEN = 512
_MAX_JSON = 16 * 2**20


@dataclass
class Folder:
    """One folder, and the files that were read from it.

    max_bytes  limit on all of them, in bytes
    hashes     SHA-256 of each, by name
    spent      bytes of all of them
    """

    path: Path
    max_bytes: int
    opened: ExitStack
    hashes: dict[str, str] = field(default_factory=dict)
    spent: int = 0
    kept: dict[str, Source] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """The folder as errors name it; its size is that of the files read."""
        return Source(self.path, io.BytesIO(), self.spent, self.max_bytes)

    def keep(self, name: str) -> Source:
        """The regular file of that name, open until the folder is closed.

        Raises InputError E201 if there is none, E204 for a name that leads elsewhere, E205.
        """
        if name not in self.kept:
            if len(self.kept) >= _MAX_OPEN:
                raise malformed(self.source, f"it refers to more than {_MAX_OPEN} files")
            self.kept[name] = self.opened.enter_context(
                open_source(self._path(name), self.max_bytes)
            )
            self._note(name, self.kept[name])
        return self.kept[name]

    def bytes_of(self, name: str) -> bytearray:
        """All bytes of the regular file of that name; raises as `keep` does."""
        with open_source(self._path(name), self.max_bytes) as source:
            self._note(name, source)
            return bytearray(source.read(0, source.size))

    def json(self, name: str) -> Any:
        """The JSON in the file of that name. Raises InputError E202, and as `keep` does."""
        source = self.keep(name)
        if source.size > _MAX_JSON:
            raise malformed(source, f"an index of {source.size:,} bytes")
        try:
            return json.loads(source.read(0, source.size))
        except (ValueError, RecursionError) as error:
            raise corrupt(source, f"it is not JSON: {cause(error)}") from error

    def size_of(self, name: str) -> int | None:
        """Bytes of the regular file of that name; None if there is none."""
        path = self._path(name)
        return path.stat().st_size if path.is_file() else None

    def sha256(self) -> str:
        """Of the sorted names of the files read, each with its own hash."""
        lines = [f"{name} {digest}\n" for name, digest in sorted(self.hashes.items())]
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if len(parts) > 2 or set(parts) & {"", ".", ".."} or set(name) & {"\\", ":", "\0"}:
            raise malformed(self.source, f"it refers to {printable(name, 80)}, outside of itself")
        return self.path.joinpath(*parts)

    def _note(self, name: str, source: Source) -> None:
        if name in self.hashes:
            return
        self.spent += source.size
        if self.spent > self.max_bytes:
            raise too_large(self.source, f"its files have over {self.spent:,} bytes")
        self.hashes[name] = source.sha256()


@dataclass(frozen=True)
class FolderFormat:
    """How a format of folders is recognised and read.

    matches  folder → whether it is this format, by the names of its files
    read     Folder → what is in it
    """

    matches: Callable[[Path], bool]
    read: Callable[[Folder], Content]


@contextmanager
def open_folder(path: Path, max_bytes: int) -> Iterator[Folder]:
    """The folder at `path`; the files that are kept open close with it."""
    with ExitStack() as opened:
        yield Folder(path, max_bytes, opened)
