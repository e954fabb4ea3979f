"""Every setting of a command with its value and source, for `--show-settings`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from rlu_cli.commands.format import chosen_format
from rlu_cli.errors import printable
from rlu_cli.settings.table import SETTINGS, taken_by
from rlu_cli.types import Setting

PLAIN_WIDTH = 4096  # a pipe has no width of its own: never wrap


def print_settings(settings: Mapping[str, Setting], command: str) -> None:
    """A row for each setting of the command, and how to give what is not given."""
    if chosen_format.get() == "json":
        shown = {name: {"value": s.value, "source": s.source} for name, s in settings.items()}
        sys.stdout.write(json.dumps({"settings": shown}, indent=2, default=str) + "\n")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("setting", "value", "source")
    names = {*taken_by(command), *settings}
    for name in (name for name in SETTINGS if name in names):
        if name in settings:
            found = settings[name]
            others = (f"{one.source} has {printable(one.value)}" for one in found.contradicted)
            source = "; but ".join((found.source, *others))
            table.add_row(name, escape(printable(found.value)), escape(source))
        else:
            table.add_row(name, "–", escape(f"not given: {SETTINGS[name].give}"))
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(table)
