"""`rlu attack`: one pair of checkpoints → label counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlu_cli.commands import options
from rlu_cli.errors import Exit
from rlu_cli.settings.specs import ATTACK, IMAGES, REPORT

if TYPE_CHECKING:
    from rlu_cli.case.build import Case


@options.with_settings(ATTACK)
def attack(
    global_: Annotated[
        Path, typer.Option("--global", metavar="FILE", help="Checkpoint the client started from.")
    ],
    local: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint the client sent back.")],
    aux: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Labelled images: a folder per class, an .npz or a published layout; none for an "
            "untrained model.",
        ),
    ],
    flags: Mapping[str, Any],
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at an unreadable image.", rich_help_panel=IMAGES),
    ] = False,
    format_: options.Format = "table",
    force: options.Force = False,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Leave out class names, counts and paths; keep scores and checks.",
            rich_help_panel=REPORT,
        ),
    ] = False,
    show_settings: options.ShowSettings = False,
    quiet: options.Quiet = False,
) -> None:
    """Recover how many examples of each class a client trained on.

    \b
    rlu attack --global g.pt --local c3.pt --aux ./aux --epochs 10

    Settings you leave out are looked up in RLU_* variables, rlu.toml files, the run folder and the
    checkpoints; everything still missing is reported in one error.
    """
    from rlu_cli.api.attack import attack_built
    from rlu_cli.case.build import build_case
    from rlu_cli.commands.output import Destination, progress_line
    from rlu_cli.settings.layers import flag_layer

    destination = Destination(format_, force=force)
    if show_settings:
        _show_settings(flags, (global_, local))
        return
    with progress_line(quiet=quiet) as progress:
        progress("reading checkpoints and images")
        case = build_case(global_, local, aux, flag_layer(flags), strict=strict)
        destination.check(case.value("output"), _inputs(case))
        progress("running both models and estimating")
        finding = attack_built(case, progress)
    destination.write(finding.report(redact=redact))
    if not finding.ok:
        raise typer.Exit(Exit.UNSETTLED)


def _inputs(case: Case) -> list[Path]:
    """What the attack reads, and its report must not overwrite."""
    named = [case.auxiliary.source, case.truth_path, case.value("history")]
    return [*(checkpoint.path for checkpoint in case.pair), *(Path(one) for one in named if one)]


def _show_settings(flags: Mapping[str, Any], paths: tuple[Path, Path]) -> None:
    """Every setting with its source, and then the error about what is missing, if anything is."""
    from rlu_cli.case.build import open_sources
    from rlu_cli.case.requirements import check_complete
    from rlu_cli.commands.settings_table import print_settings
    from rlu_cli.settings.layers import flag_layer

    pair, settings = open_sources(paths, flag_layer(flags))
    print_settings(settings, ATTACK)
    check_complete(settings, pair)
