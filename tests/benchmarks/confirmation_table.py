"""What the attacks on the confirmation set found, by group, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from confirmation_grid import STAGES

Line = dict[str, Any]
NONE = "–"
SILENT = 0.3  # of the way from a uniform guess to 1
GROUPS: dict[str, Callable[[Line], Any]] = {
    "all": lambda line: "all",
    "model": lambda line: line["model"],
    "head bias": lambda line: "with" if line["head_bias"] else "without",
    "stage": lambda line: STAGES.index(line["stage"]),
    "training accuracy": lambda line: _bin(line["reached"]),
    "images a class": lambda line: line["images"],
    "alpha": lambda line: line["alpha"],
    "round": lambda line: line["round"],
    "batch size": lambda line: line["batch_size"],
    "data": lambda line: line["data"],
    "global model made": lambda line: line["way"],
    "activation": lambda line: "to be recognised" if line["recognise"] else "given",
}


def _bin(reached: float | None) -> str:
    """The training accuracy that the global model really has, coarsely."""
    if reached is None:
        return "untrained"
    edges = ((0.25, "below .25"), (0.45, ".25 to .45"), (0.75, ".45 to .75"))
    return next((name for edge, name in edges if reached < edge), "above .75")


def render(lines: Sequence[Line], method: str | None = None) -> str:
    """Tables of every grouping, then the answers that should not have been given.

    method  whose intervals, expected accuracy and verdicts are shown; the first by default
    """
    methods = list(dict.fromkeys(line["method"] for line in lines))
    shown = method or methods[0]
    own = [line for line in lines if line["method"] == shown]
    parts = [f"Intervals, expected iAcc and verdicts: `{shown}`.\n"]
    for title, of in GROUPS.items():
        parts.append("\n".join(_table(title, of, lines, methods, shown)) + "\n")
    parts.append(_listed("Silent wrong answers", own, is_silent))
    parts.append(_listed("Reliable, but below the uniform guess", own, _is_below))
    parts.append(_failures(lines))
    return "\n".join(parts)


def _table(
    title: str,
    of: Callable[[Line], Any],
    lines: Sequence[Line],
    methods: Sequence[str],
    shown: str,
) -> Iterator[str]:
    """One grouping: a row for each group."""
    columns = [title, "n", "classes", "floor", *methods, "cAcc", "no interval", "present held"]
    columns += ["absent held", "expected − iAcc", "in its interval", "silent", "verdicts"]
    yield f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    for value in sorted({of(line) for line in lines}, key=lambda value: (str(type(value)), value)):
        own = [line for line in lines if of(line) == value]
        name = STAGES[value] if title == "stage" else value
        yield f"| {' | '.join([str(name), *_cells(own, methods, shown)])} |"


def _cells(lines: Sequence[Line], methods: Sequence[str], shown: str) -> list[str]:
    own = [line for line in lines if line["method"] == shown]
    answered = [line for line in own if line.get("iacc") is not None]
    means = [_mean([line["iacc"] for line in _answers(lines, method)]) for method in methods]
    expected = [line for line in answered if line["expected"]["value"] is not None]
    inside = [_is_inside(line) for line in expected if line["expected"]["low"] is not None]
    verdicts = Counter(line["verdict"] for line in answered if line["verdict"] is not None)
    without = sum(not has_intervals(line) for line in answered)
    present, absent = (held(answered, present=one) for one in (True, False))
    return [
        f"{len(answered)}" + (f" of {len(own)}" if len(own) > len(answered) else ""),
        str(present[1]),
        _plain([line["floor"] for line in answered]),
        *means,
        _plain([line["cacc"] for line in answered]),
        str(without) if answered else NONE,
        _share(*present),
        _share(*absent),
        _mean([line["expected"]["value"] - line["iacc"] for line in expected]),
        _share(sum(inside), len(inside)),
        str(sum(map(is_silent, answered))),
        ", ".join(f"{name} {count}" for name, count in sorted(verdicts.items())) or NONE,
    ]


def _answers(lines: Iterable[Line], method: str) -> list[Line]:
    return [line for line in lines if line["method"] == method and line.get("iacc") is not None]


def held(lines: Iterable[Line], *, present: bool) -> tuple[int, int]:
    """Classes whose interval holds the true count, and all that have one, present or absent."""
    found = [
        low <= count <= high
        for line in lines
        if has_intervals(line)
        for count, low, high in zip(line["truth"], line["low"], line["high"], strict=True)
        if (count > 0) == present
    ]
    return sum(found), len(found)


def has_intervals(line: Line) -> bool:
    """Whether every class has an interval."""
    return None not in line["low"] and None not in line["high"]


def is_silent(line: Line) -> bool:
    """Whether a wrong answer was given as a good one.

    It ended well, is less than 30 % of the way from a uniform guess to 1, and has intervals that
    miss at least half of the present classes, or none.
    """
    if line.get("iacc") is None or line["exit"] != 0 or not line["ok"]:
        return False
    hits, classes = held([line], present=True)
    near = line["iacc"] < line["floor"] + SILENT * (1 - line["floor"])
    return near and 2 * hits <= classes


def _is_below(line: Line) -> bool:
    if line.get("iacc") is None:
        return False
    return bool(line["verdict"] == "reliable" and line["iacc"] < line["floor"])


def _is_inside(line: Line) -> bool:
    expected = line["expected"]
    return bool(expected["low"] <= line["iacc"] <= expected["high"])


def _listed(title: str, lines: Sequence[Line], wrong: Callable[[Line], bool]) -> str:
    """The cases that should not be, each in a line."""
    found = [line for line in lines if wrong(line)]
    rows = [f"{title}: {len(found)} of {len(lines)}"]
    for line in found:
        hits, classes = held([line], present=True)
        rows.append(
            f"- {line['case']} ({line['model']}, {line['data']}, {line['stage']}, {line['round']}, "
            f"α {line['alpha']:g}, {line['images']} images, {line['way']}): iAcc "
            f"{line['iacc']:.3f}, floor {line['floor']:.3f}, intervals hold for {hits} of {classes}"
        )
    return "\n".join(rows) + "\n"


def _failures(lines: Sequence[Line]) -> str:
    """How often each method gave no answer, by error."""
    found = Counter((line["method"], line["error"]) for line in lines if line.get("error"))
    rows = [f"No answer: {sum(found.values())} of {len(lines)}"]
    rows += [f"- {method}: {error}, {count}" for (method, error), count in found.items()]
    return "\n".join(rows) + "\n"


def _mean(values: Sequence[float]) -> str:
    """Mean with its standard error."""
    if not values:
        return NONE
    if len(values) == 1:
        return f"{values[0]:.3f}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.3f} ± {error:.3f}"


def _plain(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f}" if values else NONE


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else NONE
