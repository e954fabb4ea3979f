"""A record of answers, to show that a change of the code changed none of them.

    python tests/benchmarks/answers.py WORK before.json          # before the change
    python tests/benchmarks/answers.py WORK2 after.json          # after it, in a fresh folder
    python tests/benchmarks/answers.py --compare before.json after.json

Every run goes through the command line. Recorded are the exit status, the error's code, and of the
JSON report every number, the warnings' codes and the keys. The comparison is exact to the last
digit; sentences may be reworded as long as different ones stay different, and keys may be added.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
ATTACK = "attack --format json"
METHODS = (
    *("auto", "rlu", "path", "fusion", "emulation", "idlg", "gi", "rlg", "llg", "llg-star"),
    *("llg+", "zlg", "zlg+", "dimitrov", "ebi", "llbg", "irlg", "ramakrishna-dan"),
    *("ramakrishna-dan-virtual", "uniform", "prior"),
)
NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 16, num_classes),
        )
"""
CLIENTS = "--clients 3 --only-clients 1 --aux-per-class 12 --batch-size 16 --lr 0.02"
TRAINED = "--clients 3 --only-clients 1 --aux-per-class 30 --batch-size 32 --lr 0.01 --pretrain 0.8"
SIMULATED = {  # name: options of `rlu simulate`
    "fedavg": f"{CLIENTS} --epochs 6",
    "full-passes": f"{CLIENTS} --epochs 2 --samples 70",
    "fedprox": f"{CLIENTS} --epochs 6 --scheme fedprox --lambda 2",
    "scaffold": f"{CLIENTS} --epochs 4 --scheme scaffold --rounds 3",
    "feddyn": f"{CLIENTS} --epochs 4 --scheme feddyn --lambda 0.5 --rounds 3",
    "feddc": f"{CLIENTS} --epochs 4 --scheme feddc --lambda 0.5 --rounds 3",
    "momentum": f"{CLIENTS} --epochs 6 --momentum 0.9 --nesterov --weight-decay 0.001 "
    "--label-smoothing 0.1 --lr-schedule cosine:12",
    "adam": f"{CLIENTS} --epochs 5 --optimizer adam",
    "clip": f"{CLIENTS} --epochs 5 --clip 0.5",
    "no-bias": f"{CLIENTS} --epochs 4 --model cnn --model-arg head_bias=False",
    "rounds": f"{CLIENTS} --epochs 4 --rounds 3",
    "batchnorm": f"{TRAINED} --epochs 8 --model net.py:Net",
    "trained": f"{TRAINED} --epochs 6 --model cnn",
}
LAST = {"scaffold": "r002", "feddyn": "r002", "feddc": "r002", "rounds": "r002"}


@dataclass(frozen=True)
class Run:
    """One command: where it runs, and its words."""

    folder: Path
    words: str


def runs(work: Path) -> Iterator[tuple[str, Run]]:
    """Every command whose answer is recorded, by name."""
    for folder in ("sample_data", "sample_data/trained"):
        for method in METHODS:
            told = f"{ATTACK} --global g.pt --local c3.pt --aux ./aux --method {method}"
            yield f"{folder} {method}", Run(ROOT / folder, told)
    sample = "--global g.pt --local c3.pt --aux ./aux"
    for name, more in {
        "printed": "--method rlu --search printed",
        "unsearched": "--method rlu --search none --draws 500 --seed 3",
        "side by side": "--method all --redact",
        "expected": "--virtual-clients 6 --method rlu",
        "learned": "--train-accuracy 0.9 --confidence 0.8",
        "fewer images": "--aux-per-class 5 --seed 4",
    }.items():
        trained = ROOT / "sample_data" / "trained"
        yield f"trained, {name}", Run(trained, f"{ATTACK} {sample} {more}")
    noise = f"{ATTACK} --global g.pt --local c3.pt --aux none"
    yield "noise images", Run(ROOT / "sample_data", noise)
    yield "noise images, trained", Run(ROOT / "sample_data" / "trained", noise)
    yield "unknown option value", Run(ROOT / "sample_data", f"{ATTACK} {sample} --lr nothing")
    for name in SIMULATED:
        folder = work / name
        pair = f"--global {LAST.get(name, 'r000')}/global.pt --local {_client(name)} --aux aux"
        history = "--history ." if name in ("scaffold", "feddyn", "feddc") else ""
        yield f"{name}, auto", Run(folder, f"{ATTACK} {pair} {history} {_model(name)}")
        if name not in ("adam", "clip"):
            methods = "--method rlu --method path --method fusion --method llg+"
            yield f"{name}, rlu", Run(folder, f"{ATTACK} {pair} {history} {_model(name)} {methods}")
    yield (
        "joint estimate",
        Run(
            work / "rounds",
            f"{ATTACK} --global r002/global.pt --local {_client('rounds')} --aux aux --history .",
        ),
    )
    bare = "--global g.pt --local c.pt --aux aux --model net.py:Net --normalize half"
    for name, more in {
        "nothing told": "",
        "lr unknown": "--batch-size 32",
        "lr inferred": "--batch-size 32 --lr infer",
        "no batch size": "--lr 0.01",
        "learned": "--lr 0.01 --batch-size 32 --train-accuracy 0.85",
        "adam": "--lr 0.01 --batch-size 32 --optimizer adam --method fusion",
        "another scheme": "--lr 0.01 --batch-size 32 --scheme scaffold",
    }.items():
        yield f"bare, {name}", Run(work / "bare", f"{ATTACK} {bare} {more}")
    bare_cnn = "--global g.pt --local c.pt --aux aux --epochs 6 --batch-size 32 --lr 0.01"
    yield "recognised", Run(work / "bare-trained", f"{ATTACK} {bare_cnn}")
    shares = bare_cnn.replace(" --batch-size 32", "")
    yield "shares only", Run(work / "bare-trained", f"{ATTACK} {shares}")
    for name, more in {
        "": "--method rlu --method auto",
        ", adam": "--optimizer adam --lr 0.001 --virtual-clients 24",
    }.items():
        words = f"calibrate --format json --global g.pt --aux aux --virtual-clients 6 {more}"
        yield f"calibrate{name}", Run(ROOT / "sample_data" / "trained", words)


def _client(name: str) -> str:
    return f"{LAST.get(name, 'r000')}/c1.pt"


def _model(name: str) -> str:
    return "--model ../net.py:Net" if name == "batchnorm" else ""


def prepare(work: Path) -> None:
    """Write the federations and the bare pairs that the commands read."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "net.py").write_text(NET)
    for name, options in SIMULATED.items():
        words = f"simulate --out {name} --quiet {options}".replace("net.py", str(work / "net.py"))
        status, _, errors = _call(Run(work, words))
        if status:
            sys.exit(f"cannot prepare {name}: {errors}")
        print(f"prepared {name}", file=sys.stderr)
    for name, source in (("bare", "batchnorm"), ("bare-trained", "trained")):
        (work / name).mkdir(exist_ok=True)
        run = work / source
        shutil.copy(run / "r000" / "global.pt", work / name / "g.pt")
        shutil.copy(run / "r000" / "c1.pt", work / name / "c.pt")
        shutil.copytree(run / "aux", work / name / "aux", dirs_exist_ok=True)
    shutil.copy(work / "net.py", work / "bare" / "net.py")


def _call(run: Run) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command, run in this process."""
    from rlu_cli.cli import main

    os.chdir(run.folder)
    sys.argv = ["rlu", *run.words.split()]
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), errors.getvalue()
    return 0, out.getvalue(), errors.getvalue()


def record(work: Path) -> dict[str, Any]:
    """What every command answered."""
    found: dict[str, Any] = {}
    for name, run in runs(work):
        began = time.perf_counter()
        status, out, errors = _call(run)
        codes = re.findall(r"error\[(E\d+)\]", errors)
        report = json.loads(out) if out.startswith("{") else None
        found[name] = {"status": status, "errors": codes, **_read(report)}
        print(f"{time.perf_counter() - began:6.1f} s  {status}  {name}", file=sys.stderr)
    return found


_CHANGING = {"created", "environment", "version", "path", "seconds", "source", "schema_version"}


def _read(report: dict[str, Any] | None) -> dict[str, Any]:
    """The report's keys, its numbers and codes by place, and its sentences by place."""
    if report is None or "error" in report:
        return {"keys": [], "values": {}, "sentences": {}}
    values: dict[str, Any] = {}
    sentences: dict[str, str] = {}
    keys: set[str] = set()

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                keys.add(re.sub(r"\[\d+\]", "[]", f"{place}.{name}"))
                if name not in _CHANGING:
                    walk(item, f"{place}.{name}")
        elif isinstance(value, list):
            values[f"{place} length"] = len(value)
            for number, item in enumerate(value):
                walk(item, f"{place}[{number}]")
        elif isinstance(value, str) and " " in value:
            sentences[place] = value
        else:
            values[place] = value

    walk(report, "")
    return {"keys": sorted(keys), "values": values, "sentences": sentences}


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Where two records differ, in words; nothing where the answers are the same."""
    statuses: dict[str, str] = {}
    for name in before.keys() | after.keys():
        if name not in before or name not in after:
            yield f"{name}: only in one record"
            continue
        old, new = before[name], after[name]
        for part in ("status", "errors"):
            if old[part] != new[part]:
                yield f"{name}: {part} {old[part]} -> {new[part]}"
        if gone := set(old["keys"]) - set(new["keys"]):
            yield f"{name}: keys gone: {', '.join(sorted(gone))}"
        for place, value in old["values"].items():
            if place in new["values"] and _bare(new["values"][place]) != _bare(value):
                yield f"{name}: {place} {value} -> {new['values'][place]}"
            elif place not in new["values"] and place not in new["sentences"]:
                yield f"{name}: {place} is gone, it was {value}"
        for place, text in old["sentences"].items():
            if place.endswith(".status"):
                said = new["sentences"].get(place, "")
                if statuses.setdefault(text, said) != said:
                    yield f"{name}: {place} {text!r} -> {said!r}"
    if len(set(statuses.values())) != len(statuses):
        yield f"statuses that were different are no longer: {statuses}"


def _bare(value: Any) -> Any:
    """A value; of an absolute path the last part, since records are made in different folders."""
    absolute = isinstance(value, str) and Path(value).is_absolute()
    return Path(value).name if absolute else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true", help="two records")
    parser.add_argument("first", type=Path, help="folder to work in, or a record")
    parser.add_argument("second", type=Path, help="record to write, or another record")
    options = parser.parse_args()
    first, second = options.first.resolve(), options.second.resolve()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in (first, second))
        found = sorted(differences(before, after))
        values = sum(len(run["values"]) for run in before.values())
        print("\n".join(found) or f"{len(before)} runs, {values} values: the same")
        sys.exit(bool(found))
    torch.set_num_threads(1)
    prepare(first)
    found_now = record(first)
    second.write_text(json.dumps(found_now, indent=1))


if __name__ == "__main__":
    main()
