"""`rlu calibrate`: what an update of this global model would reveal, without any client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rlu_cli.commands import options
from rlu_cli.settings.specs import CALIBRATE


@options.with_settings(CALIBRATE)
def calibrate(
    global_: Annotated[
        Path, typer.Option("--global", metavar="FILE", help="Checkpoint clients start from.")
    ],
    aux: Annotated[
        str,
        typer.Option(metavar="PATH", help="Labelled images, four of each class or more."),
    ],
    flags: Mapping[str, Any],
    format_: options.Format = "table",
    force: options.Force = False,
    show_settings: options.ShowSettings = False,
    quiet: options.Quiet = False,
) -> None:
    """Estimate how many of a client's labels an update of this model reveals.

    \b
    rlu calibrate --global g.pt --aux ./aux --epochs 10 --lr 0.01 --batch-size 64

    Virtual clients with known labels train from the checkpoint on one half of the auxiliary images
    and are attacked with the other half, and the other way round. No client's file is needed.
    """
    from rlu_cli.api.calibrate import calibrate_built
    from rlu_cli.case.build import build_study
    from rlu_cli.commands.output import Destination, progress_line
    from rlu_cli.reports import CALIBRATION_FORMATS
    from rlu_cli.settings.layers import flag_layer

    destination = Destination(format_, force=force, formats=CALIBRATION_FORMATS)
    if show_settings:
        _show_settings(flags, global_)
        return
    with progress_line(quiet=quiet) as progress:
        progress("reading the checkpoint and images")
        case = build_study(global_, aux, flag_layer(flags))
        destination.check(case.value("output"), (global_, Path(aux)))
        found = calibrate_built(case, progress)
    destination.write(found.report())


def _show_settings(flags: Mapping[str, Any], path: Path) -> None:
    """Every setting with its source, and then the error about what is missing, if anything is."""
    from rlu_cli.case.build import open_sources
    from rlu_cli.case.requirements import require_local_training
    from rlu_cli.commands.settings_table import print_settings
    from rlu_cli.settings.layers import flag_layer

    _, settings = open_sources((path,), flag_layer(flags), CALIBRATE)
    print_settings(settings, CALIBRATE)
    require_local_training(settings)
