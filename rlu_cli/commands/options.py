"""Options that several commands take: how clients trained, the images, the model, the estimate."""

from __future__ import annotations

from typing import Annotated

import typer

FILES = "Files"
CLIENT = "How the client trained"
IMAGES = "Auxiliary images"
MODEL = "Model"
ESTIMATE = "Estimate"
REPORT = "Report"

Epochs = Annotated[
    str | None,
    typer.Option(
        metavar="M",
        help="Local epochs: one batch each, or full passes with --samples. Left out: as "
        "BatchNorm counters say.",
        rich_help_panel=CLIENT,
    ),
]
Lr = Annotated[
    str | None,
    typer.Option(
        metavar="ETA|infer",
        help="Learning rate; infer takes it from BatchNorm buffers, however uncertain.",
        rich_help_panel=CLIENT,
    ),
]
BatchSize = Annotated[
    str | None,
    typer.Option(metavar="B", help="Images in a batch.", rich_help_panel=CLIENT),
]
Samples = Annotated[
    str | None,
    typer.Option(
        metavar="n",
        help="Images the client has: an epoch is then a full pass.",
        rich_help_panel=CLIENT,
    ),
]
StepsPerEpoch = Annotated[
    str | None,
    typer.Option(metavar="S", help="Batches in an epoch.", rich_help_panel=CLIENT),
]
DropLast = Annotated[
    bool | None,
    typer.Option(
        "--drop-last/--keep-last",
        help="Whether a last smaller batch is left out.",
        rich_help_panel=CLIENT,
        show_default=False,
    ),
]
Scheme = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="fedavg, fedprox, scaffold, feddyn or feddc [fedavg].",
        rich_help_panel=CLIENT,
    ),
]
Lambda = Annotated[
    str | None,
    typer.Option(
        "--lambda",
        metavar="L",
        help="λ of fedprox, feddyn and feddc.",
        rich_help_panel=CLIENT,
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="sgd, adam or adamw [sgd].", rich_help_panel=CLIENT),
]
Momentum = Annotated[
    str | None, typer.Option(metavar="G", help="Momentum γ.", rich_help_panel=CLIENT)
]
Nesterov = Annotated[
    bool | None,
    typer.Option(
        "--nesterov/--no-nesterov",
        help="Nesterov's momentum.",
        rich_help_panel=CLIENT,
        show_default=False,
    ),
]
WeightDecay = Annotated[
    str | None, typer.Option(metavar="W", help="Weight decay.", rich_help_panel=CLIENT)
]
Betas = Annotated[
    str | None, typer.Option(metavar="B1,B2", help="Of Adam.", rich_help_panel=CLIENT)
]
Clip = Annotated[
    str | None,
    typer.Option(metavar="NORM", help="Gradient clipping by norm.", rich_help_panel=CLIENT),
]
LabelSmoothing = Annotated[
    str | None,
    typer.Option(metavar="E", help="Label smoothing ε.", rich_help_panel=CLIENT),
]
LrSchedule = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="constant, step:K:G, cosine:T or linear:END, inside the round [constant].",
        rich_help_panel=CLIENT,
    ),
]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="auto|train|eval",
        help="Mode the client trained in; auto: train with BatchNorm or Dropout.",
        rich_help_panel=CLIENT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Architecture (rlu models), pkg.mod:factory or path/model.py:Net, whose code is "
        "then run. Left out: recognised by keys and shapes.",
        rich_help_panel=MODEL,
    ),
]
ModelArg = Annotated[
    list[str] | None,
    typer.Option(metavar="K=V", help="Argument of the model; repeatable.", rich_help_panel=MODEL),
]
Layer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Output layer.", rich_help_panel=MODEL),
]
AuxSplit = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Split to take [test, else val, else all].",
        rich_help_panel=IMAGES,
    ),
]
AuxPerClass = Annotated[
    str | None,
    typer.Option(metavar="N", help="At most N images a class.", rich_help_panel=IMAGES),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|MEAN/STD",
        help="Input scaling: auto, none, half, imagenet, or 0.5,0.5,0.5/0.5,0.5,0.5.",
        rich_help_panel=IMAGES,
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(metavar="N", help="Side the images are resized to.", rich_help_panel=IMAGES),
]
TrainAccuracy = Annotated[
    str | None,
    typer.Option(
        metavar="A",
        help="Training accuracy of the global model: how much better it knows the client's images "
        "than yours.",
        rich_help_panel=ESTIMATE,
    ),
]
TrainLoss = Annotated[
    str | None,
    typer.Option(
        metavar="L",
        help="Its training loss, where the accuracy is not known.",
        rich_help_panel=ESTIMATE,
    ),
]
Confidence = Annotated[
    str | None,
    typer.Option(
        metavar="P",
        help="Of the intervals, where the method knows its error [0.9].",
        rich_help_panel=ESTIMATE,
    ),
]
Seed = Annotated[
    str | None,
    typer.Option(metavar="N", help="Fixes every draw [0].", rich_help_panel=ESTIMATE),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="auto|cpu|cuda[:i]", help="Device.", rich_help_panel=ESTIMATE),
]
MaxBytes = Annotated[
    str | None,
    typer.Option(metavar="N", help="Largest checkpoint to open.", rich_help_panel=FILES),
]
