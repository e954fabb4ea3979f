"""Settings → the simulation they ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlu_cli.errors import UsageError
from rlu_cli.schemes.descent import BETAS
from rlu_cli.settings.parsers import INFER
from rlu_cli.simulator.defences import NOISE_ON, Defence
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.simulation import Request

MOST_ROUNDS = 200  # before the one to attack, with `train_to`


def request_of(value: Callable[[str], Any], device: torch.device) -> Request:
    """The request that settings make; `value` gives a setting by name, or None."""
    return Request(
        plan=_plan(value),
        images=value("images"),
        image_size=value("image_size"),
        model=value("model"),
        model_args=tuple(f"{name}={one}" for name, one in (value("model_args") or {}).items()),
        init=Path(value("init")) if value("init") else None,
        normalize=value("normalize"),
        aux_per_class=value("aux_per_class"),
        device=device,
    )


def _rate(value: Callable[[str], Any]) -> float:
    if value("lr") == INFER:
        raise UsageError(
            "E101",
            f"invalid value for --lr: {INFER}",
            why="a simulated client trains at a rate that has to be known",
            hint="give it with --lr ETA",
        )
    return float(value("lr"))


def _plan(value: Callable[[str], Any]) -> Plan:
    unlimited = 1 if value("train_to") is None else MOST_ROUNDS
    return Plan(
        clients=value("clients"),
        alpha=value("alpha"),
        lr=_rate(value),
        batch_size=value("batch_size"),
        epochs=value("epochs"),
        rounds=value("rounds") or unlimited,
        seed=value("seed"),
        only=value("only_clients"),
        local=_local(value),
        defence=Defence(
            noise=value("noise") or 0.0,
            noise_on=value("noise_on") or NOISE_ON[0],
            topk=value("topk"),
            dp_noise=value("dp_noise"),
            dp_clip=value("dp_clip"),
        ),
        sample_clients=value("sample_clients"),
        pretrain=value("pretrain"),
        train_to=value("train_to"),
        keep=value("keep"),
    )


def _local(value: Callable[[str], Any]) -> Local:
    return Local(
        scheme=value("scheme"),
        optimizer=value("optimizer"),
        momentum=value("momentum") or 0.0,
        nesterov=bool(value("nesterov")),
        pull=value("lambda") or 0.0,
        weight_decay=value("weight_decay") or 0.0,
        betas=value("betas") or BETAS,
        clip=value("clip") or None,
        label_smoothing=value("label_smoothing") or 0.0,
        class_weights=value("class_weights"),
        lr_schedule=value("lr_schedule"),
        samples=value("samples"),
        steps_per_epoch=value("steps_per_epoch"),
        drop_last=bool(value("drop_last")),
    )
