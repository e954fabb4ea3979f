"""Types of the keyword arguments of `rlu_cli.attack`, `calibrate` and `simulate`.

One key for each setting of the table in `rlu_cli.settings`; a test keeps the two alike. A type
checker sees a misspelt name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict

AnyPath = str | Path


class _Client(TypedDict, total=False):
    """How clients train, and how the models are run."""

    lambda_: float  # `lambda` is a word of the language

    epochs: int
    lr: float | Literal["infer"]
    batch_size: int
    samples: int
    steps_per_epoch: int
    drop_last: bool
    optimizer: Literal["sgd", "adam", "adamw"]
    momentum: float
    nesterov: bool
    weight_decay: float
    betas: tuple[float, float]
    clip: float
    label_smoothing: float
    class_weights: Sequence[float]
    lr_schedule: str
    scheme: str
    model: str
    model_args: Mapping[str, object]
    aux_per_class: int
    normalize: str
    image_size: int
    device: str
    seed: int


class _Audit(_Client, total=False):
    """What an attack and a calibration have in common."""

    mode: Literal["auto", "train", "eval"]
    layer: str
    classes: Sequence[str]
    aux_split: str
    method: str | Sequence[str]
    train_accuracy: float
    train_loss: float
    virtual_clients: int
    prior: float | str
    confidence: float
    draws: int
    search: Literal["checked", "printed", "none"]
    iterations: int
    max_bytes: int


class AttackSettings(_Audit, total=False):
    """Settings of `rlu_cli.attack`."""

    truth: AnyPath
    history: AnyPath
    joint: bool
    effort: Literal["auto", "quick", "standard", "thorough"]
    update_kind: Literal["auto", "weights", "delta", "minus-delta", "gradient"]


class CalibrateSettings(_Audit, total=False):
    """Settings of `rlu_cli.calibrate`."""

    alpha: float


class SimulateSettings(_Client, total=False):
    """Settings of `rlu_cli.simulate`."""

    images: AnyPath
    clients: int
    alpha: float
    rounds: int
    sample_clients: int
    only_clients: Sequence[int]
    keep: Literal["all", "heads"]
    init: AnyPath
    pretrain: float
    train_to: float
    noise: float
    noise_on: Literal["batch", "sample"]
    topk: float
    dp_noise: float
    dp_clip: float
