"""Where a report goes: standard output, or a file that only its owner can read."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlu_cli.commands.format import chosen_format
from rlu_cli.errors import InputError, UsageError, printable


class Destination:
    """Format and place of a command's report.

    Raises UsageError E101 for a format that there is none of.
    """

    def __init__(
        self,
        format_: str,
        *,
        force: bool,
        formats: Mapping[str, Callable[..., str]] | None = None,
    ) -> None:
        from rlu_cli.reports import FORMATS

        known = FORMATS if formats is None else formats
        if format_ not in known:
            raise UsageError(
                "E101",
                f"invalid value for --format: {printable(format_)}",
                hint=f"--format {'|'.join(known)}",
            )
        chosen_format.set(format_)
        self._render, self._force = known[format_], force
        self._file: Path | None = None

    def check(self, output: str | None, inputs: Iterable[Path] = ()) -> None:
        """Take the setting `output`. Raises UsageError E106, InputError E201 before any work.

        inputs  files that must not be overwritten, whatever --force says
        """
        self._file = Path(output) if output else None
        if self._file is not None:
            check_output(self._file, inputs, force=self._force)

    def write(self, report: Any) -> None:
        """Render the report and print or write it."""
        terminal = self._file is None and sys.stdout.isatty()
        write_report(self._render(report, terminal=terminal), self._file)


def _refuse_input(output: Path, inputs: Iterable[Path]) -> None:
    """Raises UsageError E106 where the report would replace what it is about."""
    place = output.resolve()
    if any(place == one.resolve() or one.resolve() in place.parents for one in inputs):
        raise UsageError(
            "E106",
            f"{printable(output)} is an input of this command",
            hint="give another --output",
        )


def check_output(output: Path, inputs: Iterable[Path], *, force: bool) -> None:
    """Refuse an output that is an input or exists (E106), or cannot be written (E201)."""
    _refuse_input(output, inputs)
    check_writable(output, force=force)


def check_writable(output: Path | None, *, force: bool) -> None:
    """Refuse, before any work is done, an output that exists (E106) or cannot be (E201)."""
    if output is None:
        return
    if os.path.lexists(output) and not force:
        raise UsageError(
            "E106",
            f"{printable(output)} exists",
            hint="give another --output, or --force to replace it",
        )
    why = _obstacle(output)
    if why:
        raise InputError(
            "E201",
            f"cannot write {printable(output)}",
            why=why,
            hint="give a file in an existing folder with --output",
        )


def _obstacle(output: Path) -> str:
    try:
        if output.is_dir():
            return "it is a folder"
        special = any(str(output.absolute()).startswith(root) for root in ("/dev/", "/proc/"))
        if special or (output.exists() and not output.is_file()):
            return "it is a device or a pipe, not a file"
        return "" if output.parent.is_dir() else "its folder does not exist"
    except OSError as problem:  # a name that is too long
        return printable(problem.strerror)


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[Any]:
    """A line on stderr that says what is going on, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def write_report(text: str, output: Path | None) -> None:
    """Print the report, or write it whole or not at all, mode 0600 (it holds private data)."""
    try:
        if output is None:
            _print(text)
        else:
            _replace(output, text)
    except BrokenPipeError:  # the reader has seen enough, as in `rlu attack … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as problem:
        raise InputError(
            "E201",
            f"cannot write {'standard output' if output is None else printable(output)}",
            why=printable(problem),
            hint="free some space or give another --output",
        ) from None


def _print(text: str) -> None:
    # A terminal or pipe that cannot show a character must not cost the report.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _replace(output: Path, text: str) -> None:
    replace_file(output, lambda partial: partial.write_text(text, encoding="utf-8"))


def replace_file(output: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all: `write` fills one beside it, which then takes its place.

    Raises what `write` raises, and OSError.
    """
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=".rlu-report.")
    os.close(handle)
    partial = Path(name)
    try:
        write(partial)
        os.replace(partial, output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
