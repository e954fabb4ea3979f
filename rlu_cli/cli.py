"""The command line: commands, exit statuses, and the one place where errors are shown."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from rlu_cli import __version__
from rlu_cli.commands.attack import attack
from rlu_cli.commands.calibrate import calibrate
from rlu_cli.commands.doctor import doctor
from rlu_cli.commands.inspect import inspect
from rlu_cli.commands.methods import methods
from rlu_cli.commands.models import models
from rlu_cli.commands.output import chosen_format
from rlu_cli.commands.reproduce import reproduce
from rlu_cli.commands.schemes import schemes
from rlu_cli.commands.simulate import simulate
from rlu_cli.errors import Exit, InternalError, RluError

app = typer.Typer(
    name="rlu",
    help="What one federated-learning update gives away: label counts from two checkpoints.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (attack, calibrate, inspect, simulate, reproduce, methods, models, schemes, doctor):
    app.command()(command)


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
    """What one federated-learning update gives away: label counts from two checkpoints."""


def main() -> None:
    """Run a command; turn every error into a message on stderr and an exit status.

    Under `--format json` the error is a JSON object on stdout too.
    """
    try:
        app()
    except RluError as error:
        _show(error)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:
        if os.environ.get("RLU_DEBUG"):
            raise
        _show(InternalError(error))
        sys.exit(Exit.INTERNAL)


def _show(error: RluError) -> None:
    if chosen_format.get() == "json":
        sys.stdout.write(json.dumps(error.to_dict(), indent=2) + "\n")
    sys.stderr.write(f"{error}\n")
