"""`rlu models`: the architectures that can be named, and their options."""

from __future__ import annotations


def models() -> None:
    """List the architectures known by name, and their options (--model-arg).

    A bare state_dict is recognised among the first. Name a model of your own as pkg.mod:factory or
    path/model.py:Net; its code runs only then.
    """
    from rich.console import Console
    from rich.table import Table

    from rlu_cli.models import ARCHITECTURES, SOURCES

    table = Table("name", "what it is", "options, the default first", show_lines=True)
    for row in ARCHITECTURES.values():
        table.add_row(row.name, row.summary, "\n".join(row.usage()))
    for source in SOURCES.values():
        table.add_row(source.usage, source.summary, "what the package takes")
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width of its own: never wrap
    console.print(table)
