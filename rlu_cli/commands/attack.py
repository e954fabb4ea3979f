"""`rlu attack`: one pair of checkpoints → label counts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlu_cli.commands import options
from rlu_cli.errors import Exit, RluError, UsageError, printable

if TYPE_CHECKING:
    from rlu_cli.audit.expected_accuracy import ExpectedAccuracy
    from rlu_cli.audit.finding import CaseFinding


def attack(
    global_: Annotated[
        Path,
        typer.Option(
            "--global", help="Checkpoint the client started from.", rich_help_panel=options.FILES
        ),
    ],
    local: Annotated[
        Path, typer.Option(help="Checkpoint the client sent back.", rich_help_panel=options.FILES)
    ],
    aux: Annotated[
        str,
        typer.Option(
            help="Labelled images: a folder per class, an .npz or a published layout (CIFAR, SVHN, "
            "Tiny-ImageNet); none for an untrained model.",
            rich_help_panel=options.FILES,
        ),
    ],
    truth: Annotated[
        str | None,
        typer.Option(
            help="True counts, to score the answer: JSON list, {class: count}, or CSV.",
            rich_help_panel=options.FILES,
        ),
    ] = None,
    epochs: options.Epochs = None,
    lr: options.Lr = None,
    batch_size: options.BatchSize = None,
    samples: options.Samples = None,
    steps_per_epoch: options.StepsPerEpoch = None,
    drop_last: options.DropLast = None,
    scheme: options.Scheme = None,
    lambda_: options.Lambda = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Earlier rounds, for schemes with memory and for a joint estimate over all "
            "rounds (docs/history.md).",
            rich_help_panel=options.CLIENT,
        ),
    ] = None,
    joint: Annotated[
        bool | None,
        typer.Option(
            "--joint/--no-joint",
            help="Attack the earlier rounds too, for one estimate over all of them [with "
            "--history, unless the scheme has a memory].",
            rich_help_panel=options.ESTIMATE,
            show_default=False,
        ),
    ] = None,
    optimizer: options.Optimizer = None,
    momentum: options.Momentum = None,
    nesterov: options.Nesterov = None,
    weight_decay: options.WeightDecay = None,
    betas: options.Betas = None,
    clip: options.Clip = None,
    label_smoothing: options.LabelSmoothing = None,
    lr_schedule: options.LrSchedule = None,
    mode: options.Mode = None,
    model: options.Model = None,
    model_arg: options.ModelArg = None,
    layer: options.Layer = None,
    aux_split: options.AuxSplit = None,
    aux_per_class: options.AuxPerClass = None,
    normalize: options.Normalize = None,
    image_size: options.ImageSize = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Stop at an unreadable image.", rich_help_panel=options.IMAGES
        ),
    ] = False,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method (rlu methods), auto for the most accurate one here, or all that train "
            "nothing; repeatable [auto].",
            rich_help_panel=options.ESTIMATE,
        ),
    ] = None,
    virtual_clients: Annotated[
        str | None,
        typer.Option(
            metavar="R",
            help="Virtual clients to train on the auxiliary images: they tell the iAcc to expect; "
            "emulation is made of them [0; emulation: 64, or three a class].",
            rich_help_panel=options.ESTIMATE,
        ),
    ] = None,
    train_accuracy: options.TrainAccuracy = None,
    train_loss: options.TrainLoss = None,
    confidence: options.Confidence = None,
    draws: Annotated[
        str | None,
        typer.Option(
            metavar="M", help="Monte-Carlo draws a class [10000].", rich_help_panel=options.ESTIMATE
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            metavar="checked|printed|none",
            help="Posterior search: moves kept only when they help, as the paper prints it, or "
            "none [checked].",
            rich_help_panel=options.ESTIMATE,
        ),
    ] = None,
    iterations: Annotated[
        str | None,
        typer.Option(
            metavar="T",
            help="Most passes of the search [printed: 10; checked: until no move helps].",
            rich_help_panel=options.ESTIMATE,
        ),
    ] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    max_bytes: options.MaxBytes = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="table|json", help="Format.", rich_help_panel=options.REPORT
        ),
    ] = "table",
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File to write, mode 0600.", rich_help_panel=options.REPORT
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an existing output.", rich_help_panel=options.REPORT),
    ] = False,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Leave out class names, counts and paths; keep scores and checks.",
            rich_help_panel=options.REPORT,
        ),
    ] = False,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--show-settings",
            help="Show every setting with its source and stop.",
            rich_help_panel=options.REPORT,
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=options.REPORT)
    ] = False,
) -> None:
    """Recover how many examples of each class a client trained on.

    What is not given is looked for in RLU_* variables, rlu.toml files, the run folder and the
    checkpoints themselves; what is found nowhere is one error that lists it all.
    """
    flags = {
        "truth": truth,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "samples": samples,
        "steps_per_epoch": steps_per_epoch,
        "drop_last": drop_last,
        "scheme": scheme,
        "lambda": lambda_,
        "history": history,
        "joint": joint,
        "optimizer": optimizer,
        "momentum": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "betas": betas,
        "clip": clip,
        "label_smoothing": label_smoothing,
        "lr_schedule": lr_schedule,
        "mode": mode,
        "model": model,
        "model_args": model_arg,
        "layer": layer,
        "aux_split": aux_split,
        "aux_per_class": aux_per_class,
        "normalize": normalize,
        "image_size": image_size,
        "method": method,
        "virtual_clients": virtual_clients,
        "train_accuracy": train_accuracy,
        "train_loss": train_loss,
        "confidence": confidence,
        "draws": draws,
        "search": search,
        "iterations": iterations,
        "seed": seed,
        "device": device,
        "max_bytes": max_bytes,
        "output": output,
    }
    if show_settings:
        _show_settings(flags, (global_, local))
        return
    _run(
        global_, local, aux, flags, format_, strict=strict, force=force, redact=redact, quiet=quiet
    )


def _run(
    global_: Path,
    local: Path,
    aux: str,
    flags: Mapping[str, Any],
    format_: str,
    *,
    strict: bool,
    force: bool,
    redact: bool,
    quiet: bool,
) -> None:
    from rlu_cli.audit.attack import attack as run_attack
    from rlu_cli.audit.joint_estimate import joint_estimate
    from rlu_cli.case.build import build_case
    from rlu_cli.commands.output import check_writable, progress_line, write_report
    from rlu_cli.reports import FORMATS, build_report

    if format_ not in FORMATS:
        raise UsageError(
            "E101", f"unknown format {printable(format_)!r}", hint=f"--format {'|'.join(FORMATS)}"
        )
    with progress_line(quiet=quiet) as progress:
        progress("reading checkpoints and images")
        case = build_case(global_, local, aux, flags, strict=strict)
        output = Path(case.value("output")) if case.value("output") else None
        check_writable(output, force=force)
        progress("running both models and estimating")
        finding = run_attack(case, case.value("method"), progress=progress)
        expectation = _expectation(finding, progress)
        joint = joint_estimate(finding, progress)
    terminal = output is None and sys.stdout.isatty()
    report = FORMATS[format_](
        build_report(finding, joint, expectation, redact=redact), terminal=terminal
    )
    write_report(report, output)
    answered = [m.recovery for m in finding.methods if m.recovery is not None]
    if not answered[0].status.ok:
        raise typer.Exit(Exit.UNSETTLED)


def _expectation(finding: CaseFinding, progress: Any) -> ExpectedAccuracy | None:
    """What virtual clients say of the answer, unless it is made of them or nobody wants any."""
    from rlu_cli.audit.expected_accuracy import EMULATION, estimate_accuracy_near

    count = finding.case.value("virtual_clients")
    first = next(found for found in finding.methods if found.recovery is not None)
    if not count or first.method == EMULATION:
        return None
    try:
        return estimate_accuracy_near(finding, count, progress)
    except RluError as problem:  # the answer itself is there, and is not lost
        sys.stderr.write(f"{problem}\n")
        return None


def _show_settings(flags: Mapping[str, Any], paths: tuple[Path, Path]) -> None:
    """Every setting with its source, and then the error about what is missing, if anything is."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from rlu_cli.case.build import open_sources
    from rlu_cli.case.requirements import check_complete
    from rlu_cli.settings import SETTINGS

    pair, settings = open_sources(paths, flags)
    table = Table("setting", "value", "source")
    for name, kind in SETTINGS.items():
        if name in settings:
            found = settings[name]
            table.add_row(name, escape(printable(found.value)), escape(found.source))
        else:
            table.add_row(name, "–", escape(f"not given: {kind.give}"))
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 4096  # a pipe has no width of its own: never wrap
    console.print(table)
    check_complete(settings, pair)
