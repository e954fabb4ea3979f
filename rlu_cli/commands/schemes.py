"""`rlu schemes`: the federated schemes whose clients can be simulated and attacked."""

from __future__ import annotations


def schemes() -> None:
    """List the federated schemes, and what each one needs."""
    from rich.console import Console
    from rich.table import Table

    from rlu_cli.schemes import SCHEMES

    table = Table("scheme", "what it does", "λ", "earlier rounds needed")
    for name, scheme in SCHEMES.items():
        needs = "yes: --history" if scheme.remembers else "no"
        table.add_row(name, scheme.summary, "--lambda" if scheme.takes_lambda else "", needs)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width of its own: never wrap
    console.print(table)
    console.print(
        "Each works with SGD, --momentum, --nesterov, --weight-decay, --label-smoothing and "
        "--lr-schedule in any combination; with Adam, AdamW and --clip by the method emulation."
    )
