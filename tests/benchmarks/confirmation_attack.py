"""Attacks on the prepared cases, all methods at once: one JSON line for each case and method."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

COPIED = (
    *("case", "data", "model", "act", "head_bias", "way", "stage", "alpha", "batch_size", "round"),
    *("images", "recognise", "seed", "client", "lr", "reached"),
)


@dataclass(frozen=True)
class Task:
    """One attack: the case's folder, the methods, and further options of `rlu attack`."""

    work: Path
    case: str
    methods: tuple[str, ...]
    extra: str


def run(work: Path, out: Path, methods: list[str], extra: str, jobs: int) -> None:
    """Run every attack that FILE has no line of, and append its line."""
    lines = read(out) if out.exists() else []
    done = {(line["case"], line["method"], line["attack"]) for line in lines}
    cases = sorted(file.parent.name for file in work.glob("cases/*/case.json"))
    missing = [
        Task(work, case, tuple(methods), extra)
        for case in cases
        if any((case, method, extra) not in done for method in methods)
    ]
    with out.open("a", encoding="utf-8") as stream:
        for number, lines in enumerate(_each(missing, jobs), start=1):
            stream.writelines(json.dumps(line) + "\n" for line in lines)
            stream.flush()
            shown = ", ".join(f"{line['method']} {line.get('iacc')}" for line in lines)
            print(f"{number}/{len(missing)} {lines[0]['case']}: {shown}", file=sys.stderr)


def read(file: Path) -> list[dict[str, Any]]:
    """The lines of a file that `run` wrote; a half-written last one is left out."""
    found = []
    for text in file.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


def _each(tasks: list[Task], jobs: int) -> Iterator[list[dict[str, Any]]]:
    if jobs == 1:
        yield from map(attack, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as executor:
        yield from executor.map(attack, tasks)


def attack(task: Task) -> list[dict[str, Any]]:
    """One attack, and what is recorded of each method."""
    torch.set_num_threads(1)
    folder = task.work / "cases" / task.case
    facts = json.loads((folder / "case.json").read_text("utf-8"))
    line = {name: facts.get(name) for name in COPIED}
    line |= {"attack": task.extra, "error": facts.get("error")}
    if line["error"] is not None:  # the client could not be trained
        return [line | {"method": method} for method in task.methods]
    words = _words(task, facts)
    began = time.perf_counter()
    status, out, errors = call(words)
    line |= {"seconds": round(time.perf_counter() - began, 2), "exit": status}
    report = json.loads(out) if out.startswith("{") else {}
    if "result" not in report:
        code = re.search(r"E\d{3}", out + errors)
        line |= {"error": code.group() if code else errors.strip()[-200:] or "no report"}
        return [line | {"method": method} for method in task.methods]
    truth = (folder / "r000" / f"c{facts['client']}.truth.json").read_text("utf-8")
    line |= {"truth": json.loads(truth)["counts"]}
    return [line | {"method": name} | _recorded(report, name) for name in task.methods]


def _words(task: Task, facts: dict[str, Any]) -> list[str]:
    """The command; the settings beside the checkpoints say the rest."""
    run = task.work / "cases" / task.case
    client = run / "r000" / f"c{facts['client']}"
    words = ["attack", "--global", str(run / "r000" / "global.pt"), "--local", f"{client}.pt"]
    words += ["--aux", str(task.work / facts["aux"]), "--truth", f"{client}.truth.json"]
    words += [word for method in task.methods for word in ("--method", method)]
    words += ["--format", "json", "--quiet", "--device", "cpu"]
    if facts["model"] == "resnet18gn":
        words += ["--model", f"{task.work / 'resnet18gn.py'}:Net"]
        words += ["--model-arg", f"head_bias={facts['head_bias']}"]
    return words + shlex.split(task.extra)


def call(words: list[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command, run in this process."""
    from rlu_cli.cli import main

    sys.argv = ["rlu", *words]
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), errors.getvalue()
        except Exception as failure:  # recorded, so that one failure does not end the run
            return 1, out.getvalue(), f"{errors.getvalue()}{type(failure).__name__}: {failure}"
    return 0, out.getvalue(), errors.getvalue()


def _recorded(report: dict[str, Any], name: str) -> dict[str, Any]:
    """What is recorded of one method; `auto` is the one that it chose."""
    entries = {one["method"]: one for one in report["methods"]}
    chosen = next((one for one in report["methods"] if one["chosen"] is not None), None)
    entry = chosen if name == "auto" else entries.get(name)
    if entry is None or entry["result"] is None:
        return {"error": "refused"}
    result, metrics = entry["result"], entry["metrics"] or {}
    verdict = (result.get("verdict") or {}).get("level")
    expected = result.get("expected_iacc") or {}
    return {
        "exit": 0 if result["ok"] and verdict != "unreliable" else 4,
        "ok": result["ok"],
        "status": result["status"],
        "chosen": entry["method"],
        "iacc": metrics.get("iacc"),
        "cacc": metrics.get("cacc"),
        "floor": metrics.get("floor_iacc"),
        "expected": {key: expected.get(key) for key in ("value", "low", "high")},
        "verdict": verdict,
        "cause": (result.get("verdict") or {}).get("cause"),
        "diagnostics": {
            key: entry["diagnostics"].get(key) for key in ("noise", "error_ratio", "folds")
        },
        "warnings": sorted({one["code"] for one in report["warnings"]}),
        "counts": [row["count"] for row in result["counts"]],
        "low": [row.get("low") for row in result["counts"]],
        "high": [row.get("high") for row in result["counts"]],
    }
