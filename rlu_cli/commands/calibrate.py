"""`rlu calibrate`: what an update of this global model would give away, without any client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rlu_cli.errors import UsageError, printable

_FILES = "Files"
_CLIENT = "How clients train"
_IMAGES = "Auxiliary images"
_MODEL = "Model"
_ESTIMATE = "Estimate"
_REPORT = "Report"


def calibrate(
    global_: Annotated[
        Path,
        typer.Option("--global", help="Checkpoint clients start from.", rich_help_panel=_FILES),
    ],
    aux: Annotated[
        str,
        typer.Option(help="Labelled images, four of each class or more.", rich_help_panel=_FILES),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Method (rlu methods) or auto; repeatable [auto].",
            rich_help_panel=_ESTIMATE,
        ),
    ] = None,
    virtual_clients: Annotated[
        int,
        typer.Option(min=2, metavar="R", help="Virtual clients.", rich_help_panel=_ESTIMATE),
    ] = 16,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=1e6,
            help="Dirichlet concentration of their labels: small means few classes a client.",
            rich_help_panel=_ESTIMATE,
        ),
    ] = 0.5,
    epochs: Annotated[
        str | None,
        typer.Option(
            metavar="M",
            help="Local epochs: one batch each, or full passes with --samples. Left out: as "
            "BatchNorm counters say.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            metavar="ETA|infer",
            help="Learning rate; infer takes it from BatchNorm buffers, however uncertain.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(metavar="B", help="Images in a batch.", rich_help_panel=_CLIENT),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="n",
            help="Images the client has: an epoch is then a full pass.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    steps_per_epoch: Annotated[
        str | None,
        typer.Option(metavar="S", help="Batches in an epoch.", rich_help_panel=_CLIENT),
    ] = None,
    drop_last: Annotated[
        bool | None,
        typer.Option(
            "--drop-last/--keep-last",
            help="Whether a last smaller batch is left out.",
            rich_help_panel=_CLIENT,
            show_default=False,
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="fedavg, fedprox, scaffold, feddyn or feddc [fedavg].",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    lambda_: Annotated[
        str | None,
        typer.Option(
            "--lambda",
            metavar="L",
            help="λ of fedprox, feddyn and feddc.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="sgd, adam or adamw [sgd].", rich_help_panel=_CLIENT),
    ] = None,
    momentum: Annotated[
        str | None, typer.Option(metavar="G", help="Momentum γ.", rich_help_panel=_CLIENT)
    ] = None,
    nesterov: Annotated[
        bool | None,
        typer.Option(
            "--nesterov/--no-nesterov",
            help="Nesterov's momentum.",
            rich_help_panel=_CLIENT,
            show_default=False,
        ),
    ] = None,
    weight_decay: Annotated[
        str | None, typer.Option(metavar="W", help="Weight decay.", rich_help_panel=_CLIENT)
    ] = None,
    betas: Annotated[
        str | None, typer.Option(metavar="B1,B2", help="Of Adam.", rich_help_panel=_CLIENT)
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(metavar="NORM", help="Gradient clipping by norm.", rich_help_panel=_CLIENT),
    ] = None,
    label_smoothing: Annotated[
        str | None,
        typer.Option(metavar="E", help="Label smoothing ε.", rich_help_panel=_CLIENT),
    ] = None,
    lr_schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="constant, step:K:G, cosine:T or linear:END, inside the round [constant].",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="auto|train|eval",
            help="Mode the client trained in; auto: train with BatchNorm or Dropout.",
            rich_help_panel=_CLIENT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Architecture (rlu models), pkg.mod:factory or path/model.py:Net, whose code is "
            "then run. Left out: recognised by keys and shapes.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="Argument of the model; repeatable.", rich_help_panel=_MODEL
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Output layer.", rich_help_panel=_MODEL),
    ] = None,
    aux_split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Split to take [test, else val, else all].",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    aux_per_class: Annotated[
        str | None,
        typer.Option(metavar="N", help="At most N images a class.", rich_help_panel=_IMAGES),
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|MEAN/STD",
            help="Input scaling: auto, none, half, imagenet, or 0.5,0.5,0.5/0.5,0.5,0.5.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="N", help="Side the images are resized to.", rich_help_panel=_IMAGES),
    ] = None,
    train_accuracy: Annotated[
        str | None,
        typer.Option(
            metavar="A",
            help="Training accuracy of the global model, for virtual clients.",
            rich_help_panel=_ESTIMATE,
        ),
    ] = None,
    train_loss: Annotated[
        str | None,
        typer.Option(
            metavar="L",
            help="Its training loss, where the accuracy is not known.",
            rich_help_panel=_ESTIMATE,
        ),
    ] = None,
    confidence: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="Of the intervals, where the method knows its error [0.9].",
            rich_help_panel=_ESTIMATE,
        ),
    ] = None,
    seed: Annotated[
        str | None,
        typer.Option(metavar="N", help="Fixes every draw [0].", rich_help_panel=_ESTIMATE),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="auto|cpu|cuda[:i]", help="Device.", rich_help_panel=_ESTIMATE),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(metavar="N", help="Largest checkpoint to open.", rich_help_panel=_FILES),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="table|json", help="Format.", rich_help_panel=_REPORT)
    ] = "table",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write, mode 0600.", rich_help_panel=_REPORT),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an existing output.", rich_help_panel=_REPORT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=_REPORT)
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
    from rlu_cli.calibration import expect
    from rlu_cli.cases import build_study
    from rlu_cli.commands.output import check_writable, progress, write_report
    from rlu_cli.ensemble import draw_shares
    from rlu_cli.observe import choose_device
    from rlu_cli.reports import CALIBRATION_FORMATS, build_calibration

    if format_ not in CALIBRATION_FORMATS:
        known = "|".join(CALIBRATION_FORMATS)
        raise UsageError("E101", f"unknown format {printable(format_)!r}", hint=f"--format {known}")
    check_writable(output, force=force)
    count, alpha = drawn
    with progress(quiet=quiet) as say:
        say("reading the checkpoint and images")
        case = build_study(global_, aux, flags)
        shares = draw_shares(case.auxiliary.classes, alpha, count, case.value("seed"))
        found = [expect(case, method, shares, say) for method in case.value("method")]
    report = build_calibration(case, found, choose_device(case.value("device")))
    write_report(CALIBRATION_FORMATS[format_](report), output)
