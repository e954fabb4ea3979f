"""True label counts of a client, read from JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.regular_files import read_regular

_MAX_BYTES = 2**22  # a million classes take less


def load_truth(
    path: Path, class_names: Sequence[str], total: int | None, passes: int = 1
) -> Tensor:
    """Read counts (N,) int64: a JSON list, `{class: count}`, `{"counts": …}`, or CSV `class,count`.

    class_names  classes in the order of the output layer
    total        K according to the settings; None if |B| is unknown
    passes       full passes over the client's samples: counts of its own samples, K / passes in
                 all, count that often

    Raises InputError E201 if the file cannot be read, UsageError E104 if its format is unknown,
    InputError E230 if it does not fit the classes or K.
    """
    content = _parsed(path, _text(path))
    counts = _counts(path, content, class_names)
    if passes > 1 and total is not None and sum(counts) * passes == total:
        counts = [count * passes for count in counts]
    if total is not None and sum(counts) != total:
        raise InputError(
            "E230",
            f"truth in {printable(path)} has {sum(counts)} labels, the settings imply {total}"
            + f", or {total // passes} in each of {passes} passes" * (passes > 1),
            hint="check --epochs, --batch-size and --samples: they determine how many labels the "
            "update contains",
        )
    return torch.tensor(counts, dtype=torch.int64)


def _text(path: Path) -> str:
    try:
        # Spreadsheets prepend a byte-order mark.
        return read_regular(path, _MAX_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as problem:  # no such name, or not UTF-8
        raise InputError(
            "E201",
            f"cannot read the truth in {printable(path)}",
            why=printable(problem),
            hint="give a readable JSON or CSV file with --truth",
        ) from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _table(path, text)


def _table(path: Path, text: str) -> dict[str, Any]:
    """CSV `class,count`, with or without a header."""
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(io.StringIO(text, newline=""))
            if row
        ]
    except csv.Error:
        raise _unknown(path) from None
    if any(len(row) != 2 for row in rows):
        raise _unknown(path)
    if rows and not _is_count(rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise _unknown(path)
    if len({name for name, _ in rows}) != len(rows):
        raise _unknown(path, "it names a class twice")
    return dict(rows)


def _unknown(path: Path, why: str = "") -> UsageError:
    return UsageError(
        "E104",
        f"unknown format of the truth in {printable(path)}",
        why=why,
        hint='use a JSON list of counts, {"class": count}, {"counts": […]}, or CSV class,count',
    )


def _counts(path: Path, content: Any, class_names: Sequence[str]) -> list[int]:
    if isinstance(content, Mapping) and "counts" in content:
        named = content.get("classes")
        if isinstance(named, list) and sorted(map(str, named)) == sorted(class_names):
            listed = content["counts"]
            if isinstance(listed, list) and len(listed) == len(named):
                content = dict(zip(map(str, named), listed, strict=True))
            else:
                content = listed
        else:
            content = content["counts"]
    if isinstance(content, Mapping):
        content = _by_name(path, content, class_names)
    if not isinstance(content, list) or not all(_is_count(value) for value in content):
        raise _unknown(path)
    if len(content) != len(class_names):
        raise InputError(
            "E230",
            f"truth in {printable(path)} has {len(content)} classes, "
            f"the output layer has {len(class_names)}",
            hint="give one count per class, in the order of the output layer, zeros included",
        )
    return [int(value) for value in content]


def _by_name(path: Path, content: Mapping[Any, Any], class_names: Sequence[str]) -> list[Any]:
    """Counts in class order; 0 for classes that are not named. Raises InputError E230."""
    known = {name: n for n, name in enumerate(class_names)}
    indices = {str(n): n for n in range(len(class_names))}
    numbered = not set(content) <= set(known) and set(content) <= set(indices)
    lookup = indices if numbered else known
    unknown_names = [str(name) for name in content if name not in lookup]
    if unknown_names:
        raise InputError(
            "E230",
            f"truth in {printable(path)} names classes the model does not have: "
            + ", ".join(printable(name) for name in unknown_names[:5]),
            hint=f"classes: {', '.join(printable(name) for name in list(class_names)[:10])}",
        )
    counts: list[Any] = [0] * len(class_names)
    for name, value in content.items():
        counts[lookup[name]] = value
    return counts


def _is_count(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"\s*[0-9]{1,15}\s*", value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15
