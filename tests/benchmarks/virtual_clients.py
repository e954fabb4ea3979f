"""How long virtual clients take one by one and several at once.

    python tests/benchmarks/virtual_clients.py [--width 0.25] [--device cuda] [--clients 64]

A VGG-16 of the given width, 10 classes, 32×32 random pixels, |B| = 64, m = 10 steps of Adam. Every
figure is a ratio to the time one by one in the same run, after a first round that warms up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rlu_cli.evidence.forward import ForwardConfig, choose_device
from rlu_cli.evidence.virtual_batch import train_together
from rlu_cli.evidence.virtual_client import train_virtual
from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.local_training.description import describe_local_training
from rlu_cli.models import build_model
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.types import Auxiliary, Checkpoint

CLASSES, PER_CLASS, BATCH, STEPS = 10, 100, 64, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--at-once", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    options = parser.parse_args()
    config = ForwardConfig(
        layer="classifier.6",
        normalise=PRESETS["half"],
        training=True,
        batch=BATCH,
        device=choose_device(options.device),
        seed=0,
    )
    torch.manual_seed(0)
    size = {"width": options.width, "hidden": int(4096 * options.width)}
    model = build_model("vgg16", classes=CLASSES, arguments=size)
    checkpoint = Checkpoint(Path("global.pt"), "0" * 64, "torch-zip", model.state_dict())
    labels = torch.arange(CLASSES).repeat_interleave(PER_CLASS)
    names = tuple(map(str, range(CLASSES)))
    auxiliary = Auxiliary(torch.rand(len(labels), 3, 32, 32), labels, names, "random", "0" * 64)
    settings = {"lr": 1e-3, "epochs": STEPS, "batch_size": BATCH, "optimizer": "adam"}
    settings |= {"scheme": "fedavg", "lr_schedule": "constant"}
    training = describe_local_training(settings.get)
    rounds = [
        draw_batches(len(labels), training.plan, np.random.default_rng(number))
        for number in range(options.clients)
    ]
    given = model, checkpoint, auxiliary

    def one_by_one() -> None:
        for batches in rounds:
            train_virtual(*given, batches, training, config)

    def together(count: int) -> None:
        for first in range(0, len(rounds), count):
            part = rounds[first : first + count]
            assert train_together(*given, part, training, [config] * len(part)) is not None

    one_by_one()
    alone = _seconds(one_by_one)
    print(
        f"{config.device}, width {options.width}: one by one {alone / len(rounds):.4f} s a client"
    )
    for count in options.at_once:
        together(count)
        taken = _seconds(partial(together, count))
        each, faster = taken / len(rounds), alone / taken
        print(f"{count} at once {each:.4f} s a client, {faster:.2f} times as fast")


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()  # ends with a copy to the CPU, which waits for the device
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
