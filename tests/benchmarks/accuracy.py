"""Accuracy on real images: the rows of docs/results.md, through the same two commands a user types.

    python tests/benchmarks/accuracy.py --data DATA --work WORK [ROW ...]

DATA holds CIFAR10.npz and MNIST32.npz (`images`, `labels`, `class_names`, `split`). Each row runs
`rlu simulate` and then `rlu attack` on every client, and prints iAcc per client, the mean and its
standard error, beside the score of an even guess.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

RLU = [sys.executable, "-m", "rlu_cli"]
CIFAR = "--images {data}/CIFAR10.npz --aux-per-class 100 --alpha 0.5 --seed 0 --clients 10"
LENET = f"{CIFAR} --model lenet5 --batch-size 32 --lr 0.01"
VGG = f"{CIFAR} --model vgg16 --batch-size 64 --lr 0.01 --model-arg act=relu"

ROWS = {
    "lenet5-relu-m1": f"{LENET} --model-arg act=relu --epochs 1",
    "lenet5-relu-m10": f"{LENET} --model-arg act=relu --epochs 10",
    "lenet5-tanh-m1": f"{LENET} --model-arg act=tanh --epochs 1",
    "lenet5-tanh-m10": f"{LENET} --model-arg act=tanh --epochs 10",
    "vgg16-relu-m1": f"{VGG} --epochs 1",
    "vgg16-relu-m10": f"{VGG} --epochs 10",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the simulated runs")
    parser.add_argument("--attack", default="", help="further options of rlu attack")
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    options = parser.parse_args()
    print("| row | clients | iAcc | standard error | even guess | cAcc | per client |")
    print("|---|---|---|---|---|---|---|")
    for name in options.rows:
        print(_row(name, options.data, options.work / name, shlex.split(options.attack)), flush=True)


def _row(name: str, data: Path, run: Path, attack: list[str]) -> str:
    """Simulate one row's federation, attack every client of its last round, and score it."""
    simulate = shlex.split(ROWS[name].format(data=data))
    subprocess.run([*RLU, "simulate", "--out", str(run), "-q", *simulate], check=True)
    rounds = sorted(p.parent for p in run.glob("r*/c*.truth.json"))
    clients = sorted(rounds[-1].glob("c*.truth.json"), key=lambda p: int(p.name[1:].split(".")[0]))
    metrics = [_attack(run, truth, attack) for truth in clients]
    scores = [m["iacc"] for m in metrics]
    error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else float("nan")
    cells = (
        name,
        len(scores),
        f"{statistics.mean(scores):.4f}",
        f"{error:.4f}",
        f"{statistics.mean(m['floor_iacc'] for m in metrics):.3f}",
        f"{statistics.mean(m['cacc'] for m in metrics):.3f}",
        " ".join(f"{s:.3f}" for s in scores),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _attack(run: Path, truth: Path, extra: list[str]) -> dict[str, float]:
    local = truth.with_name(truth.name.replace(".truth.json", ".pt"))
    files = ["--global", str(truth.parent / "global.pt"), "--local", str(local)]
    command = [*RLU, "attack", *files, "--aux", str(run / "aux"), "--format", "json", *extra]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["metrics"]


if __name__ == "__main__":
    main()
