"""`rlu methods`: the methods that recover labels, and what each was made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from rlu_cli.attacks import Method

# Headings of what a method was made for, and the field of `Method` that tells.
CAPABILITIES = {
    "batch": "batch",
    "labels\nrepeat": "repeated",
    "any\nacti-\nvation": "any_activation",
    "several\nsteps": "several_steps",
    "trained\nmodel": "trained",
    "any\nopti-\nmiser": "any_optimiser",
}
LEGEND = """\
gives  counts of every class, or the set of classes that are there
batch to trained model: the columns of Table 7 of the paper on RLU. Outside of
       what it was made for a method runs and warns, or refuses with the reason.
needs  images: labelled auxiliary images; dummies: black, white and random ones;
       virtual: clients of a single class, simulated on the auxiliary images;
       mixed: the same with mixed labels;
       line: models between the two checkpoints"""


def methods() -> None:
    """List the methods --method knows, what each was made for, what it needs, and its paper."""
    from rich.console import Console

    from rlu_cli.attacks import ATTACKS
    from rlu_cli.commands.output import write_report

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width of its own: never wrap
    with console.capture() as shown:
        console.print(_capabilities(ATTACKS))
        console.print(f"\n{LEGEND}\n", soft_wrap=True)
        console.print(_papers(ATTACKS))
    write_report(shown.get(), None)


def _capabilities(attacks: Mapping[str, Method]) -> Table:
    """What each method can do, in the 80 columns of a terminal."""
    table = _table("method", "gives", *CAPABILITIES, "needs")
    for name, method in attacks.items():
        can = ["yes" if getattr(method, field) else "no" for field in CAPABILITIES.values()]
        needs = [*(["images"] if method.auxiliary else []), *sorted(n.name for n in method.needs)]
        table.add_row(name, method.gives, *can, "\n".join(needs))
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
