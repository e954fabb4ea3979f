"""`rlu calibrate`: what an update of this global model would give away, without any client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rlu_cli.commands import options
from rlu_cli.errors import UsageError, printable


def calibrate(
    global_: Annotated[
        Path,
        typer.Option(
            "--global", help="Checkpoint clients start from.", rich_help_panel=options.FILES
        ),
    ],
    aux: Annotated[
        str,
        typer.Option(
            help="Labelled images, four of each class or more.", rich_help_panel=options.FILES
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method (rlu methods) or auto; repeatable [auto].",
            rich_help_panel=options.ESTIMATE,
        ),
    ] = None,
    virtual_clients: Annotated[
        int,
        typer.Option(min=2, metavar="R", help="Virtual clients.", rich_help_panel=options.ESTIMATE),
    ] = 16,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=1e6,
            help="Dirichlet concentration of their labels: small means few classes a client.",
            rich_help_panel=options.ESTIMATE,
        ),
    ] = 0.5,
    epochs: options.Epochs = None,
    lr: options.Lr = None,
    batch_size: options.BatchSize = None,
    samples: options.Samples = None,
    steps_per_epoch: options.StepsPerEpoch = None,
    drop_last: options.DropLast = None,
    scheme: options.Scheme = None,
    lambda_: options.Lambda = None,
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
    train_accuracy: options.TrainAccuracy = None,
    train_loss: options.TrainLoss = None,
    confidence: options.Confidence = None,
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
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write, mode 0600.", rich_help_panel=options.REPORT
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an existing output.", rich_help_panel=options.REPORT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=options.REPORT)
    ] = False,
) -> None:
    """Expect how much of a client's labels an update of this model gives away.

    Virtual clients train from the checkpoint on half of the auxiliary images, with labels that are
    known, and are attacked with the other half; and the other way round.
    """
    flags = {
        "method": method,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "samples": samples,
        "steps_per_epoch": steps_per_epoch,
        "drop_last": drop_last,
        "scheme": scheme,
        "lambda": lambda_,
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
        "train_accuracy": train_accuracy,
        "train_loss": train_loss,
        "confidence": confidence,
        "seed": seed,
        "device": device,
        "max_bytes": max_bytes,
    }
    _run(global_, aux, flags, (virtual_clients, alpha), format_, output, force=force, quiet=quiet)


def _run(
    global_: Path,
    aux: str,
    flags: Mapping[str, Any],
    drawn: tuple[int, float],
    format_: str,
    output: Path | None,
    *,
    force: bool,
    quiet: bool,
) -> None:
    from rlu_cli.audit.expected_accuracy import expect
    from rlu_cli.case.build import build_study
    from rlu_cli.commands.output import check_writable, progress_line, write_report
    from rlu_cli.evidence.forward import choose_device
    from rlu_cli.evidence.virtual_population import draw_shares
    from rlu_cli.reports import CALIBRATION_FORMATS, build_calibration

    if format_ not in CALIBRATION_FORMATS:
        known = "|".join(CALIBRATION_FORMATS)
        raise UsageError("E101", f"unknown format {printable(format_)!r}", hint=f"--format {known}")
    check_writable(output, force=force)
    count, alpha = drawn
    with progress_line(quiet=quiet) as progress:
        progress("reading the checkpoint and images")
        case = build_study(global_, aux, flags)
        shares = draw_shares(case.auxiliary.classes, alpha, count, case.value("seed"))
        found = [expect(case, method, shares, progress) for method in case.value("method")]
    report = build_calibration(case, found, choose_device(case.value("device")))
    write_report(CALIBRATION_FORMATS[format_](report), output)
