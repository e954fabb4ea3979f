"""Settings of a client's local training."""

from __future__ import annotations

from rlu_cli.settings import parsers as parse
from rlu_cli.settings.choices import table_names
from rlu_cli.settings.specs import ALL, CALIBRATE, CLIENT, SCHEME, SIMULATE, SettingSpec

MAX_STEPS = 5_000
_OPTIMIZERS = ("sgd", "adam", "adamw")


def _schemes() -> tuple[str, ...]:
    return table_names("schemes/__init__.py", "SCHEMES")


CLIENT_SETTINGS: dict[str, SettingSpec] = {
    "epochs": SettingSpec(
        parse.whole(1, MAX_STEPS),
        give="--epochs M, local steps of one batch each",
        help="Local epochs of one batch each; with --samples, full passes. "
        "Default: from BatchNorm counters.",
        helps=dict.fromkeys(
            (CALIBRATE, SIMULATE), "Local epochs of one batch each; with --samples, full passes."
        ),
        metavar="M",
        commands=ALL,
        basic=ALL,
        defaults={SIMULATE: 1},
    ),
    "lr": SettingSpec(
        parse.learning_rate,
        give="--lr ETA, the client's learning rate",
        help="Learning rate. infer: estimate it from BatchNorm buffers, even if uncertain.",
        helps=dict.fromkeys((CALIBRATE, SIMULATE), "Learning rate."),
        metavar="ETA",
        commands=ALL,
        basic=ALL,
        defaults={SIMULATE: 0.01},
    ),
    "batch_size": SettingSpec(
        parse.whole(1, 10**6),
        give="--batch-size B",
        help="Samples in a batch.",
        metavar="B",
        commands=ALL,
        basic=ALL,
        defaults={SIMULATE: 32},
    ),
    "samples": SettingSpec(
        parse.whole(1, 10**8),
        give="--samples N, the client's samples",
        help="Samples the client holds; an epoch is then a full pass over them.",
        helps={SIMULATE: "Samples each client uses; an epoch is then a full pass over them."},
        metavar="N",
        commands=ALL,
        basic=ALL,
    ),
    "steps_per_epoch": SettingSpec(
        parse.whole(1, MAX_STEPS),
        give="--steps-per-epoch S",
        help="Batches in an epoch, where --samples is not known.",
        metavar="S",
        commands=ALL,
        panel=CLIENT,
    ),
    "drop_last": SettingSpec(
        parse.switch,
        give="--drop-last",
        help="Whether a smaller last batch is dropped.",
        commands=ALL,
        panel=CLIENT,
        option="--drop-last/--keep-last",
    ),
    "optimizer": SettingSpec(
        parse.choice(*_OPTIMIZERS),
        give="--optimizer NAME",
        help="sgd, adam or adamw.",
        metavar="NAME",
        commands=ALL,
        panel=CLIENT,
        default="sgd",
        choices=lambda: _OPTIMIZERS,
    ),
    "momentum": SettingSpec(
        parse.between(0, 1, below=True),
        give="--momentum G",
        help="Momentum γ of sgd.",
        metavar="G",
        commands=ALL,
        panel=CLIENT,
    ),
    "nesterov": SettingSpec(
        parse.switch,
        give="--nesterov",
        help="Nesterov momentum.",
        commands=ALL,
        panel=CLIENT,
        option="--nesterov/--no-nesterov",
    ),
    "weight_decay": SettingSpec(
        parse.between(0, 1e6),
        give="--weight-decay W",
        help="Weight decay; decoupled for adamw.",
        metavar="W",
        commands=ALL,
        panel=CLIENT,
    ),
    "betas": SettingSpec(
        parse.betas,
        give="--betas B1,B2",
        help="β1 and β2 of adam and adamw (default: 0.9,0.999).",
        metavar="B1,B2",
        commands=ALL,
        panel=CLIENT,
    ),
    "clip": SettingSpec(
        parse.between(0, 1e12),
        give="--clip NORM (0: none)",
        help="Gradient clipping by norm; 0 for none.",
        metavar="NORM",
        commands=ALL,
        panel=CLIENT,
    ),
    "label_smoothing": SettingSpec(
        parse.between(0, 1, below=True),
        give="--label-smoothing E",
        help="Label smoothing ε.",
        metavar="E",
        commands=ALL,
        panel=CLIENT,
    ),
    "class_weights": SettingSpec(
        parse.class_weights,
        give="--class-weights A,B,…",
        help="Weight of each class in the client's cross-entropy, in the class order.",
        metavar="A,B,…",
        commands=ALL,
        panel=CLIENT,
    ),
    "lr_schedule": SettingSpec(
        parse.schedule,
        give="--lr-schedule NAME",
        help="Schedule inside the round: constant, step:K:G, cosine:T or linear:END.",
        metavar="NAME",
        commands=ALL,
        panel=CLIENT,
        default="constant",
        choices=lambda: ("constant", "step:", "cosine:", "linear:"),
    ),
    "mode": SettingSpec(
        parse.choice("auto", "train", "eval"),
        give="--mode train|eval",
        help="Mode the client trained in; auto: train with BatchNorm or Dropout.",
        metavar="MODE",
        panel=CLIENT,
        default="auto",
        choices=lambda: ("auto", "train", "eval"),
    ),
    "scheme": SettingSpec(
        parse.scheme,
        give="--scheme NAME",
        help="fedavg, fedprox, scaffold, feddyn or feddc (see rlu schemes).",
        metavar="NAME",
        commands=ALL,
        panel=SCHEME,
        default="fedavg",
        choices=_schemes,
    ),
    "lambda": SettingSpec(
        parse.between(0, 1e6),
        give="--lambda L, of fedprox, feddyn and feddc",
        help="λ of fedprox, feddyn and feddc.",
        metavar="L",
        commands=ALL,
        panel=SCHEME,
        option="--lambda",
    ),
    "history": SettingSpec(
        parse.text,
        give="--history DIR, the client's earlier rounds",
        help="Earlier rounds: for schemes with memory, and for one estimate over all rounds.",
        metavar="DIR",
        commands=("attack",),
        panel=SCHEME,
        path=True,
    ),
}
