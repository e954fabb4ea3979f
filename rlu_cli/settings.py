"""Settings with their sources: flag > RLU_* > rlu.toml beside the checkpoints > rlu.toml or
[tool.rlu] upwards from the working directory > the run folder > the checkpoint > default.

A file beside what is under inspection is not the user: from there nothing that would run code,
write a file, lift a limit or reach outside its folder is taken.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.types import Setting

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "rlu.toml"
PATHS = ("truth", "output", "history")
MAX_STEPS = 5_000
_MAX_TOML = 2**20


@dataclass(frozen=True)
class Kind:
    """One setting: how its value is read, and what the user is told about it.

    parse    value as given (TOML type or text) → value; raises ValueError with what is expected
    give     how to give it, for the error that lists what is missing
    default  taken when nobody says; None where there is none
    beside   whether a file beside what is inspected may say it
    """

    parse: Callable[[Any], Any]
    give: str
    default: Any = None
    beside: bool = True


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = _whole_number(value)
        if number is None or not low <= number <= high:
            raise ValueError(f"a whole number from {low} to {high:,}")
        return number

    return parse


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    try:
        return int(value)
    except ValueError:  # no number, or more digits than Python reads
        return None


def _positive(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("a number above 0")
    return number


def _between(low: float, high: float, *, below: bool = False) -> Callable[[Any], float]:
    """A number from `low` to `high`, or below it."""

    def parse(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = float("nan")
        fits = low <= number < high if below else low <= number <= high
        if isinstance(value, bool) or not fits:
            raise ValueError(f"a number from {low:g} to {'below ' * below}{high:g}")
        return number

    return parse


def _flag(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError("true or false")
    return known[value.lower()]


def _betas(value: Any) -> tuple[float, float]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or len(listed) != 2:
        raise ValueError("two numbers, as in 0.9,0.999")
    first, second = map(_between(0, 1, below=True), listed)
    return first, second


def _schedule(value: Any) -> str:
    from rlu_cli.schemes import parse_schedule

    parse_schedule(_text(value))
    return str(value)


def _choice(*names: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return str(value)

    return parse


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a text")
    return value


def _names(value: Any) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(n, str) and n for n in listed):
        raise ValueError("a list of class names in the order of the output layer")
    if len(set(listed)) != len(listed):
        raise ValueError("class names that are all different")
    return tuple(listed)


def _arguments(value: Any) -> dict[str, Any]:
    from rlu_cli.models import parse_argument

    if isinstance(value, Mapping):
        return dict(value)
    listed = value.split(";") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(t, str) for t in listed):
        raise ValueError("a table of names and values, or texts name=value")
    return dict(parse_argument(text) for text in listed)


def _normalise(value: Any) -> str:
    from rlu_cli.normalisation import AUTO, parse_normalisation

    text = _text(value)
    if text != AUTO:
        parse_normalisation(text)
    return text


KINDS: dict[str, Kind] = {
    "model": Kind(_text, "--model NAME (`rlu models` lists them, or path/model.py:Net)"),
    "model_args": Kind(_arguments, "--model-arg K=V"),
    "lr": Kind(_positive, "--lr ETA, the client's learning rate"),
    "epochs": Kind(_whole(1, MAX_STEPS), "--epochs M, local steps of one batch each"),
    "batch_size": Kind(_whole(1, 10**6), "--batch-size B"),
    "samples": Kind(_whole(1, 10**8), "--samples n, the client's images"),
    "steps_per_epoch": Kind(_whole(1, MAX_STEPS), "--steps-per-epoch S"),
    "drop_last": Kind(_flag, "--drop-last"),
    "scheme": Kind(
        _choice("fedavg", "fedprox", "scaffold", "feddyn", "feddc"), "--scheme NAME", "fedavg"
    ),
    "lambda": Kind(_between(0, 1e6), "--lambda L, of fedprox, feddyn and feddc"),
    "optimizer": Kind(_choice("sgd", "adam", "adamw"), "--optimizer NAME", "sgd"),
    "momentum": Kind(_between(0, 1, below=True), "--momentum G"),
    "nesterov": Kind(_flag, "--nesterov"),
    "weight_decay": Kind(_between(0, 1e6), "--weight-decay W"),
    "betas": Kind(_betas, "--betas B1,B2"),
    "clip": Kind(_positive, "--clip NORM"),
    "label_smoothing": Kind(_between(0, 1, below=True), "--label-smoothing E"),
    "lr_schedule": Kind(_schedule, "--lr-schedule NAME", "constant"),
    "history": Kind(_text, "--history DIR, the client's earlier rounds"),
    "layer": Kind(_text, "--layer NAME"),
    "classes": Kind(_names, "classes = [...] in rlu.toml"),
    "aux_split": Kind(_text, "--aux-split NAME"),
    "aux_per_class": Kind(_whole(2, 10**6), "--aux-per-class N"),
    "normalize": Kind(_normalise, "--normalize NAME or MEAN/STD", "auto"),
    "image_size": Kind(_whole(1, 4096), "--image-size N"),
    "mode": Kind(_choice("auto", "train", "eval"), "--mode train|eval", "auto"),
    "search": Kind(_choice("checked", "printed", "none"), "--search NAME", "checked"),
    "iterations": Kind(_whole(0, 10_000), "--iterations T"),
    "draws": Kind(_whole(1, 10**8), "--draws M", 10_000),
    "seed": Kind(_whole(0, 2**63 - 1), "--seed N", 0),
    "device": Kind(_text, "--device auto|cpu|cuda[:i]", "auto"),
    "truth": Kind(_text, "--truth FILE"),
    "output": Kind(_text, "--output FILE", beside=False),
    "max_bytes": Kind(_whole(1, 2**50), "--max-bytes N", 2**34, beside=False),
}


@dataclass(frozen=True)
class Layer:
    """Values of one rank, each with its source.

    trusted  whether the user wrote it
    folder   where relative paths start
    """

    values: Mapping[str, Setting]
    trusted: bool = True
    folder: Path = field(default_factory=Path.cwd)


def flag_layer(flags: Mapping[str, Any]) -> Layer:
    """What was typed; None stands for an option that was not."""
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    return Layer({name: Setting(value, "flag") for name, value in given.items()})


def environment_layer(environment: Mapping[str, str] = os.environ) -> Layer:
    """RLU_LR, RLU_BATCH_SIZE, … as settings."""
    variables = {name: f"RLU_{name.upper()}" for name in KINDS}
    return Layer(
        {
            name: Setting(environment[variable], variable)
            for name, variable in variables.items()
            if environment.get(variable)
        }
    )


def resolve(layers: Sequence[Layer]) -> dict[str, Setting]:
    """The value of every setting that anyone gave or that has a default, first layer first.

    Raises UsageError E101 for a value that cannot be, E105 for one that a file beside the inspected
    files may not set. What a higher rank overrules is not looked at, so that naming a value on the
    command line is a way past either.
    """
    found: dict[str, Setting] = {}
    for layer in layers:
        for name, given in layer.values.items():
            _check_known(name, given)
            if name not in found:
                found[name] = _accepted(name, given, layer)
    for name, kind in KINDS.items():
        if name not in found and kind.default is not None:
            found[name] = Setting(kind.default, "default")
    return found


def _check_known(name: str, given: Setting) -> None:
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1)
        raise UsageError(
            "E101",
            f"unknown setting {printable(name)!r} in {given.source}",
            hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(KINDS)}",
        )


def _accepted(name: str, given: Setting, layer: Layer) -> Setting:
    if not layer.trusted:
        _refuse_unsafe(name, given, layer)
    try:
        parsed = KINDS[name].parse(given.value)
    except ValueError as expected:
        raise UsageError(
            "E101",
            f"{name} = {printable(given.value)} ({given.source}) cannot be",
            hint=f"expected {expected}",
        ) from None
    value = str(layer.folder / parsed) if name in PATHS else parsed
    return Setting(value, given.source)


def _refuse_unsafe(name: str, given: Setting, layer: Layer) -> None:
    """Refuse what a file beside the inspected ones must not decide (E105)."""
    from rlu_cli.models import runs_code

    value, why = given.value, None
    if not KINDS[name].beside:
        why = "a file beside what is under inspection is not the user"
    elif name == "model" and isinstance(value, str) and runs_code(value):
        why = "it would run code that the user did not name"
    elif name in PATHS and isinstance(value, str) and not _inside(layer.folder, value):
        why = f"it lies outside {printable(layer.folder)}"
    if why is not None:
        raise UsageError(
            "E105",
            f"refused {name} = {printable(value)!r} from {given.source}",
            why=why,
            hint=f"if you want it, name it on the command line: {KINDS[name].give}",
        )


def _inside(folder: Path, value: str) -> bool:
    return (folder / value).resolve().is_relative_to(folder.resolve())


def file_layers(inspected: Sequence[Path], working: Path) -> list[Layer]:
    """Every settings file that counts, in order: beside the inspected, upwards, the run folder."""
    beside = list(dict.fromkeys(path.parent.resolve() for path in inspected))
    runs = [folder.parent for folder in beside if (folder / "round.json").is_file()]
    untrusted = {*beside, *runs}
    layers = list(_toml_layers(beside, trusted=False))
    upwards = [f for f in (working.resolve(), *working.resolve().parents) if f not in untrusted]
    layers += islice(_toml_layers(upwards, trusted=True), 1)
    layers += _toml_layers(dict.fromkeys(runs), trusted=False)
    return layers


def _toml_layers(folders: Any, *, trusted: bool) -> Iterator[Layer]:
    for folder in folders:
        own, project = folder / FILE_NAME, folder / "pyproject.toml"
        if own.is_file():
            yield Layer(_flat(_parsed(own), printable(own)), trusted, folder)
        elif trusted and project.is_file():
            tools = _parsed(project).get("tool")
            table = tools.get("rlu") if isinstance(tools, dict) else None
            if isinstance(table, dict):
                source = f"{printable(project)} [tool.rlu]"
                yield Layer(_flat(table, source), trusted, folder)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_TOML:
            raise ValueError("over a megabyte")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(
            "E201",
            f"cannot read settings from {printable(path)}",
            why=printable(problem),
            hint="repair the file or move it away",
        ) from None


def _flat(table: Mapping[str, Any], source: str) -> dict[str, Setting]:
    return {name.replace("-", "_"): Setting(value, source) for name, value in table.items()}


def require(settings: Mapping[str, Setting], names: Sequence[str], notes: Sequence[str]) -> None:
    """Raise UsageError E102 that lists every one of `names` that nobody gave, and how to give it.

    notes  further lines on what the files told, such as what a counter says
    """
    missing = [name for name in names if name not in settings]
    if missing:
        raise UsageError(
            "E102",
            f"nobody said: {', '.join(missing)}",
            facts=[(name, KINDS[name].give) for name in missing]
            + [("note", note) for note in notes],
            hint="give each on the command line, as RLU_NAME, or in an rlu.toml",
        )
