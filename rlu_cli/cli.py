"""The command line: commands, exit statuses, and the one place where errors are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from importlib import import_module
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from rlu_cli import __version__
from rlu_cli.commands.format import chosen_format
from rlu_cli.commands.streams import discard_output, keep_streams
from rlu_cli.errors import (
    Exit,
    InputError,
    InternalError,
    RluError,
    UsageError,
    from_system,
    printable,
)

# A command is one file in commands/ and one line here: its name, and what it does in a sentence.
COMMANDS = {
    "attack": "Recover how many examples of each class a client trained on.",
    "calibrate": "Estimate how many of a client's labels an update of this model reveals.",
    "inspect": "Show what is in a checkpoint, or in a pair of them; runs no code from it.",
    "convert": "Write what was read from a checkpoint as safetensors; runs no code from it.",
    "simulate": "Train a federation whose label counts are known, and write every checkpoint.",
    "reproduce": "Run the paper's experiments, and put its figures beside the measured ones.",
    "methods": "List the methods that recover labels, and what each one needs.",
    "models": "List the architectures known by name, and their options.",
    "schemes": "List the federated schemes, and what each one needs.",
    "doctor": "Show versions, devices and installed extras.",
}
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


class Commands(TyperGroup):
    """Commands that are imported when they run: `rlu --help` and completion need names alone."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if self._listing else load(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        super().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        self._listing = True
        return super().shell_complete(ctx, incomplete)


@cache
def load(name: str) -> Any:
    """The command of that name, with its options."""
    alone = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, context_settings=_SETTINGS
    )
    alone.command(name)(_held(getattr(import_module(f"rlu_cli.commands.{name}"), name)))
    return typer.main.get_command(alone)


def _held(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which no code that it runs can end: commands themselves never exit so."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        _check_folder()
        try:
            command(*args, **kwargs)
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as end:
            raise InputError(
                "E216",
                "the code of the model ended the program",
                why=printable(f"{type(end).__name__}: {end}"),
                hint="correct the code: a model raises errors, and does not exit",
            ) from end

    return run


def _check_folder() -> None:
    """Raise InputError E201 where the working directory is gone: PyTorch would abort."""
    try:
        os.getcwd()
    except OSError as problem:
        raise InputError(
            "E201",
            "the working directory is gone",
            why=printable(problem.strerror),
            hint="change to a folder that exists and start again",
        ) from None


app = typer.Typer(
    name="rlu",
    cls=Commands,
    help="What one federated-learning update reveals: label counts from two checkpoints.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlu {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """What one federated-learning update reveals: label counts from two checkpoints."""


def main() -> None:
    """Run a command; turn every error into a message on stderr and an exit status.

    Under `--format json` the error is a JSON object on stdout too.
    """
    chosen_format.set("json" if _asks_for_json(sys.argv) else "table")
    keep_streams()
    try:
        _run()
    except RluError as error:
        _show(error)
        sys.exit(error.exit_status)
    except SystemExit as end:
        if end.code == Exit.USAGE and chosen_format.get() == "json":
            _print_json(BAD_COMMAND_LINE)  # typer has said on stderr what is wrong
        if end.code == Exit.INTERRUPTED:  # typer says nothing
            _say("interrupted")
        raise
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:
        known = from_system(error)
        if known is not None:
            _show(known)
            sys.exit(known.exit_status)
        if os.environ.get("RLU_DEBUG"):
            raise
        _show(InternalError(error))
        sys.exit(Exit.INTERNAL)


def _run() -> None:
    """Run the command, and make sure that what it printed has arrived."""
    try:
        app()
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


BAD_COMMAND_LINE = UsageError(
    "E100",
    "the command line is not valid",
    why="an option or argument is missing or unknown: the message is on stderr",
    hint="see --help",
)


def _asks_for_json(words: list[str]) -> bool:
    """Whether the command line asks for JSON, even one that cannot be parsed."""
    return ("--format", "json") in pairwise(words) or "--format=json" in words


def _show(error: RluError) -> None:
    if chosen_format.get() == "json":
        _print_json(error)
    _say(str(error))


def _say(text: str) -> None:
    with suppress(OSError):  # no one listens: the exit status says it
        sys.stderr.write(f"{text}\n")


def _print_json(error: RluError) -> None:
    try:
        sys.stdout.write(json.dumps(error.to_dict(), indent=2) + "\n")
        sys.stdout.flush()
    except OSError:
        discard_output()
