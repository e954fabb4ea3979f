"""`rlu methods`: the methods that recover labels, and what each was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from rlu_cli.attacks import Method

# Headings of what a method was made for, and the field of `Method` that says so.
CAPABILITIES = {
    "batch": "batch",
    "labels\nrepeat": "repeated",
    "any\nacti-\nvation": "any_activation",
    "several\nsteps": "several_steps",
    "trained\nmodel": "trained",
    "any\nopti-\nmiser": "any_optimiser",
}
_UNBOUNDED = 10_000  # columns
LEGEND = """\
gives  counts of every class, or the set of classes that are present
batch to trained model: the columns of Table 7 of the paper on RLU. Outside of
       what it was made for a method runs and warns, or says why it cannot run."""


def methods() -> None:
    """List the methods that recover labels, and what each one needs.

    What each was made for, what it needs, and its paper.
    """
    from rich.console import Console

    from rlu_cli.attacks import ATTACKS
    from rlu_cli.commands.output import write_report

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED  # a pipe has no width of its own: never wrap
    with console.capture() as shown:
        console.print(_capabilities(ATTACKS))
        console.print(f"\n{LEGEND}\n", soft_wrap=True)
        console.print(_needs(ATTACKS))
        console.print()
        console.print(_papers(ATTACKS))
    write_report(shown.get(), None)


def _capabilities(attacks: Mapping[str, Method]) -> Table:
    """What each method can do, in the 80 columns of a terminal."""
    table = _table("method", "gives", *CAPABILITIES)
    for name, method in attacks.items():
        can = ["yes" if getattr(method, field) else "no" for field in CAPABILITIES.values()]
        table.add_row(name, method.gives, *can)
    return table


def _needs(attacks: Mapping[str, Method]) -> Table:
    """What some methods need besides the checkpoints, and which do."""
    users: dict[tuple[str, str], list[str]] = {}
    for name, method in attacks.items():
        asked = [("images", "labelled auxiliary images")] * method.auxiliary
        asked += sorted((need.name, need.summary) for need in method.needs)
        for need in asked:
            users.setdefault(need, []).append(name)
    table = _table("needed", "what it is", "by")
    for (title, summary), names in users.items():
        table.add_row(title, summary, ", ".join(names))
    return table


def _papers(attacks: Mapping[str, Method]) -> Table:
    table = _table("method", "title", "paper")
    for name, method in attacks.items():
        table.add_row(name, method.title, method.paper)
    return table


def _table(*headings: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(*headings, box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.columns[0].no_wrap = True
    return table
