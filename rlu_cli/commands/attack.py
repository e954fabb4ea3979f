"""`rlu attack`: one pair of checkpoints → label counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlu_cli.commands import options, run_options
from rlu_cli.errors import Exit, UsageError
from rlu_cli.settings.specs import ATTACK, IMAGES, REPORT

if TYPE_CHECKING:
    from rlu_cli.case.build import Case
    from rlu_cli.runs import Chosen


_Global = Annotated[
    Path | None,
    typer.Option("--global", metavar="FILE", help="Checkpoint the client started from."),
]
_Local = Annotated[
    Path | None, typer.Option("--local", metavar="FILE", help="Checkpoint the client sent back.")
]
_Aux = Annotated[
    str | None,
    typer.Option(
        "--aux",
        metavar="PATH",
        help="Labelled images: a folder per class, an .npz or a published layout; none for an "
        "untrained model.",
    ),
]


@options.with_settings(ATTACK)
def attack(
    flags: Mapping[str, Any],
    global_: _Global = None,
    local: _Local = None,
    aux: _Aux = None,
    run: run_options.RunDir = None,
    round_: run_options.Round = None,
    client: run_options.Client = None,
    trust_code: run_options.TrustCode = False,
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
    rlu attack --run DIR --aux ./aux

    Settings you leave out are looked up in RLU_* variables, rlu.toml files, the run folder and the
    checkpoints; everything still missing is reported in one error.
    """
    from rlu_cli.api.attack import attack_built
    from rlu_cli.case.build import build_case
    from rlu_cli.commands.output import Destination, progress_line
    from rlu_cli.settings.layers import flag_layer

    destination = Destination(format_, force=force)
    chosen = run_options.chosen_pair(
        run, round_, client, before=global_, after=local, trust_code=trust_code
    )
    pair = _pair(chosen, global_, local)
    if show_settings:
        _show_settings(flags, pair, chosen)
        return
    images = _images(chosen, aux)
    with progress_line(quiet=quiet) as progress:
        progress("reading checkpoints and images")
        case = build_case(*pair, images, flag_layer(flags), strict=strict, run=chosen)
        destination.check(case.value("output"), _inputs(case))
        progress("running both models and estimating")
        finding = attack_built(case, progress)
    destination.write(finding.report(redact=redact))
    if not finding.ok:
        raise typer.Exit(Exit.UNSETTLED)


def _pair(chosen: Chosen | None, before: Path | None, after: Path | None) -> tuple[Path, Path]:
    """The global and the client's checkpoint. Raises UsageError E102 without both."""
    if chosen is not None:
        return chosen.before, chosen.after
    if before is None or after is None:
        missing = [n for n, given in (("--global", before), ("--local", after)) if given is None]
        raise _missing(missing, "name both checkpoints, or the folder of a run with --run DIR")
    return before, after


def _images(chosen: Chosen | None, aux: str | None) -> str:
    """The auxiliary images, or the run folder's. Raises UsageError E102 without any."""
    if aux is not None:
        return aux
    if chosen is None or chosen.run.aux is None:
        raise _missing(["--aux"], "--aux PATH, labelled images; --aux none for an untrained model")
    return str(chosen.run.aux)


def _missing(options_: list[str], hint: str) -> UsageError:
    return UsageError("E102", f"missing option: {', '.join(options_)}", hint=hint)


def _inputs(case: Case) -> list[Path]:
    """What the attack reads, and its report must not overwrite."""
    named = [case.auxiliary.source, case.truth_path, case.value("history")]
    return [*(checkpoint.path for checkpoint in case.pair), *(Path(one) for one in named if one)]


def _show_settings(
    flags: Mapping[str, Any], paths: tuple[Path, Path], chosen: Chosen | None
) -> None:
    """Every setting with its source, and then the error about what is missing, if anything is."""
    from rlu_cli.case.build import open_sources
    from rlu_cli.case.requirements import check_complete
    from rlu_cli.case.run_settings import run_hints
    from rlu_cli.commands.settings_table import print_settings
    from rlu_cli.settings.layers import flag_layer

    pair, settings = open_sources(paths, flag_layer(flags), run=chosen)
    print_settings(settings, ATTACK)
    check_complete(settings, pair, run_hints(chosen, settings))
