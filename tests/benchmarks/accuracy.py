"""Accuracy on real images: the rows of docs/results.md, through the same two commands a user types.

    python tests/benchmarks/accuracy.py --data DATA --work WORK [ROW ...]

DATA holds CIFAR10.npz and MNIST32.npz (`images`, `labels`, `class_names`, `split`). Each row runs
`rlu simulate` and then `rlu attack` on every client of one round, and prints the mean iAcc, its
standard error, the score of a uniform guess, and where the lost labels went:

    P        half the distance between the shares found and the weighted ones that Δb can show
    weights  half the distance between those and the plain shares: no reading of Δb avoids it
    rounding half the distance between the shares found and the counts given
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlu_cli.local_training.description import describe_local_training
from rlu_cli.schemes import step_weights

RLU = [sys.executable, "-m", "rlu_cli"]
COMMON = "--aux-per-class 100 --alpha 0.5 --seed 0 --clients 10"
CIFAR = f"--images {{data}}/CIFAR10.npz {COMMON}"
LENET = f"{CIFAR} --model lenet5 --batch-size 32 --lr 0.01"
VGG = f"{CIFAR} --model vgg16 --batch-size 64 --model-arg act=relu"
DIGITS = (
    f"--images {{data}}/MNIST32.npz {COMMON} --model lenet5 --batch-size 32 --epochs 10 --lr 0.01"
)
COLOUR = f"{VGG} --epochs 10 --lr 0.05"
TRAINED = f"{CIFAR} --batch-size 64 --epochs 10 --lr 0.01"
QUARTER = "--model vgg16 --model-arg width=0.25 --model-arg hidden=512"
# Table 4: options of the scheme, and the round under attack (t = 1 is the first).
TABLE_4 = {
    "fedprox-0.5": ("--scheme fedprox --lambda 0.5", 1),
    "fedprox-5": ("--scheme fedprox --lambda 5", 1),
    "sgdm-0.1": ("--momentum 0.1", 1),
    "sgdm-0.9": ("--momentum 0.9", 1),
    "nag-0.9": ("--momentum 0.9 --nesterov", 1),
    "feddyn-t2": ("--scheme feddyn --lambda 0.5", 2),
    "feddyn-t6": ("--scheme feddyn --lambda 0.5", 6),
    "scaffold-t2": ("--scheme scaffold", 2),
    "scaffold-t6": ("--scheme scaffold", 6),
    "feddc-t2": ("--scheme feddc --lambda 0.5", 2),
}


@dataclass(frozen=True)
class Row:
    """One row: options of `rlu simulate`, and the round under attack."""

    simulate: str
    round: int = 1


ROWS = {
    "lenet5-relu-m1": Row(f"{LENET} --model-arg act=relu --epochs 1"),
    "lenet5-relu-m10": Row(f"{LENET} --model-arg act=relu --epochs 10"),
    "lenet5-tanh-m1": Row(f"{LENET} --model-arg act=tanh --epochs 1"),
    "lenet5-tanh-m10": Row(f"{LENET} --model-arg act=tanh --epochs 10"),
    "vgg16-relu-m1": Row(f"{VGG} --lr 0.01 --epochs 1"),
    "vgg16-relu-m10": Row(f"{VGG} --lr 0.01 --epochs 10"),
    **{
        f"{name}-p{reached}": Row(f"{TRAINED} {model} --pretrain {reached}")
        for name, model in (("cnn", "--model cnn"), ("vgg16q", QUARTER))
        for reached in (0.6, 0.8, 0.9)
    },
    **{
        f"vgg16q-p0.8-{name}": Row(f"{TRAINED} {QUARTER} --pretrain 0.8 {options}")
        for name, options in (
            ("lr0.05", "--lr 0.05"),
            ("sgdm", "--momentum 0.9"),
            ("prox", "--scheme fedprox --lambda 5"),
            ("full", "--samples 500"),
            ("adam", "--optimizer adam --lr 0.001"),
        )
    },
    "vgg16-elu-m10": Row(f"{CIFAR} --model vgg16 --batch-size 64 --model-arg act=elu --epochs 10"),
    **{
        f"{name}-{scheme}": Row(f"{base} {options} --rounds {number}", number)
        for name, base in (("lenet5", DIGITS), ("vgg16", COLOUR))
        for scheme, (options, number) in TABLE_4.items()
    },
}
COLUMNS = ("row", "clients", "iAcc", "s.e.", "even", "cAcc", "P", "weights", "rounding", "each")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the simulated runs")
    parser.add_argument("--clients", type=int, default=10, help="attack clients 0 to N - 1")
    parser.add_argument(
        "--attack", default="--method rlu", help="further options of rlu attack [--method rlu]"
    )
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in options.rows:
        run = options.work / re.sub(r"-t\d$", "", name)  # later rounds go on from earlier ones
        clients = _clients(name, options.data, run, options.clients)
        found = [_attack(run, truth, shlex.split(options.attack)) for truth in clients]
        print(f"| {name} | {' | '.join(_cells(found))} |", flush=True)


def _clients(name: str, data: Path, run: Path, count: int) -> list[Path]:
    """Simulate one row's federation; the truths of its first clients in the round under attack."""
    row = ROWS[name]
    words = [
        *RLU,
        "simulate",
        "--out",
        str(run),
        "-q",
        *shlex.split(row.simulate.format(data=data)),
    ]
    if count < 10:
        words += ["--only-clients", ",".join(map(str, range(count)))]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    folder = run / f"r{row.round - 1:03d}"
    return [folder / f"c{client}.truth.json" for client in range(count)]


@dataclass(frozen=True)
class Found:
    """One client's scores and where its lost labels went."""

    metrics: dict[str, float]
    split: tuple[float, float, float]


def _attack(run: Path, truth: Path, extra: list[str]) -> Found:
    local = truth.with_name(truth.name.replace(".truth.json", ".pt"))
    files = ["--global", str(truth.parent / "global.pt"), "--local", str(local)]
    command = [*RLU, "attack", *files, "--aux", str(run / "aux"), "--format", "json", *extra]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    return Found(report["metrics"], _split(report, json.loads(truth.read_text())))


def _split(report: dict[str, Any], truth: dict[str, Any]) -> tuple[float, float, float]:
    """Error in P, of the weights, and of rounding, each as a share of the labels."""
    training = describe_local_training(lambda name: report["settings"].get(name, {}).get("value"))
    rho = step_weights(training.recursion)[-1].numpy()
    per_step = np.asarray(truth["per_step"], dtype=float)
    weighted = (rho / rho.sum()) @ (per_step / per_step.sum(1, keepdims=True))
    plain = per_step.sum(0) / per_step.sum()
    rows = report["result"]["counts"]
    shares = np.asarray([row["share"] for row in rows])
    counts = np.asarray([row["count"] for row in rows]) / report["result"]["total"]
    pairs = ((shares, weighted), (weighted, plain), (shares, counts))
    error, weights, rounding = (float(np.abs(a - b).sum()) / 2 for a, b in pairs)
    return error, weights, rounding


def _cells(found: list[Found]) -> list[str]:
    scores = [one.metrics["iacc"] for one in found]
    error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else float("nan")
    means = [statistics.mean(one.metrics[name] for one in found) for name in ("floor_iacc", "cacc")]
    splits = [statistics.mean(one.split[part] for one in found) for part in range(3)]
    figures = [f"{value:.4f}" for value in (statistics.mean(scores), error)]
    figures += [f"{value:.3f}" for value in (*means, *splits)]
    return [str(len(scores)), *figures, " ".join(f"{score:.3f}" for score in scores)]


if __name__ == "__main__":
    main()
