"""The confirmation set: cases fixed beforehand that nothing is developed on.

    python tests/benchmarks/confirmation.py prepare --data DATA --work WORK
    python tests/benchmarks/confirmation.py run --work WORK --out FILE --methods auto,rlu
    python tests/benchmarks/confirmation.py table FILE

DATA holds CIFAR10.npz, CIFAR100.npz, MNIST32.npz, TINY200.npz and CINIC10S.npz. `prepare` and `run`
go on where they were stopped. `--set development` draws from the same grid with other seeds: what
is developed is measured on that one, and the confirmation set is run once, at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from confirmation_attack import read, run
from confirmation_clients import prepare
from confirmation_grid import SETS, draw
from confirmation_table import render


def main() -> None:
    """Read the command line, and do what it says."""
    torch.set_num_threads(1)
    options = _parser().parse_args()
    if options.command == "prepare":
        prepare(
            draw(options.set), options.data, options.work.resolve(), options.limit, options.jobs
        )
    elif options.command == "run":
        methods = options.methods.split(",")
        run(options.work.resolve(), options.out, methods, options.attack, options.jobs)
    else:
        print(render(read(options.file), options.method))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("prepare", help="train global models and clients")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--work", type=Path, required=True)
    made.add_argument("--set", choices=tuple(SETS), default="confirmation")
    made.add_argument(
        "--limit", type=float, default=240, help="processor seconds to train a line in [240]"
    )
    made.add_argument("--jobs", type=int, default=1, help="global models at a time [1]")
    attacked = commands.add_parser("run", help="attack every client that is prepared")
    attacked.add_argument("--work", type=Path, required=True)
    attacked.add_argument("--out", type=Path, required=True, help="file of JSON lines to append to")
    attacked.add_argument("--methods", default="auto", help="separated by commas [auto]")
    attacked.add_argument("--attack", default="", help="further options of rlu attack")
    attacked.add_argument("--jobs", type=int, default=1, help="processes [1]")
    shown = commands.add_parser("table", help="what was found, as Markdown")
    shown.add_argument("file", type=Path, help="that `run` wrote")
    shown.add_argument("--method", help="whose intervals and verdicts to show [the first]")
    return parser


if __name__ == "__main__":
    main()
