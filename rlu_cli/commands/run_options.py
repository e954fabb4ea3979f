"""`--run DIR` and what chooses a pair in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlu_cli.errors import UsageError

if TYPE_CHECKING:
    from rlu_cli.runs import Chosen

_PANEL = "Run folder"

RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="DIR",
        help="Run folder of Flower, NVFlare, FedML, Plato, HF Trainer, Lightning or rlu simulate: "
        "the pair and its settings are found in it.",
        rich_help_panel=_PANEL,
    ),
]
Round = Annotated[
    int | None,
    typer.Option(
        "--round",
        metavar="N",
        help="Round in it, or a trainer's step. Default: the last.",
        rich_help_panel=_PANEL,
    ),
]
Client = Annotated[
    str | None,
    typer.Option(
        "--client",
        metavar="NAME",
        help="Client in it. Default: the last of the round.",
        rich_help_panel=_PANEL,
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Run the model code that the run folder holds.",
        rich_help_panel=_PANEL,
    ),
]


def chosen_pair(
    run: Path | None,
    round_: int | None,
    client: str | None,
    *,
    before: Path | None = None,
    after: Path | None = None,
    trust_code: bool = False,
) -> Chosen | None:
    """The pair of a run folder; None without one.

    Raises UsageError E106 for options that choose in no folder, and as `open_run` and `choose` do.
    """
    if run is not None:
        from rlu_cli.runs import choose, open_run

        return choose(
            open_run(run),
            round_=round_,
            client=client,
            before=before,
            after=after,
            trust_code=trust_code,
        )
    given = {"--round": round_ is not None, "--client": client is not None}
    alone = [name for name, typed in {**given, "--trust-code": trust_code}.items() if typed]
    if alone:
        raise UsageError(
            "E106",
            f"{' and '.join(alone)} without --run",
            hint="name the run folder with --run DIR",
        )
    return None
