"""The table of settings: how each value is read, and how the user can give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_STEPS = 5_000
ALL_METHODS = "all"  # every method that trains nothing
PATHS = ("truth", "output", "history")
INFER = "infer"  # a learning rate that the files are to tell, however wide its interval


@dataclass(frozen=True)
class SettingSpec:
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


def _rate(value: Any) -> float | str:
    if value == INFER:
        return INFER
    try:
        return _positive(value)
    except ValueError as expected:
        raise ValueError(f"{expected}, or {INFER}") from None


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


def _methods(value: Any) -> tuple[str, ...]:
    from rlu_cli.attacks import ATTACKS, AUTO

    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ValueError("a list of methods")
    quick = tuple(name for name, method in ATTACKS.items() if not method.trains)
    wanted = [n for name in listed for n in (quick if name == ALL_METHODS else (name,))]
    if not set(wanted) <= {AUTO, *ATTACKS}:
        raise ValueError(f"{ALL_METHODS}, or some of {', '.join((AUTO, *ATTACKS))}")
    return tuple(dict.fromkeys(wanted))


def _normalise(value: Any) -> str:
    from rlu_cli.models.input_scaling import AUTO, parse_normalisation

    text = _text(value)
    if text != AUTO:
        parse_normalisation(text)
    return text


SETTINGS: dict[str, SettingSpec] = {
    "model": SettingSpec(_text, "--model NAME (`rlu models` lists them, or path/model.py:Net)"),
    "model_args": SettingSpec(_arguments, "--model-arg K=V"),
    "lr": SettingSpec(_rate, "--lr ETA, the client's learning rate"),
    "epochs": SettingSpec(_whole(1, MAX_STEPS), "--epochs M, local steps of one batch each"),
    "batch_size": SettingSpec(_whole(1, 10**6), "--batch-size B"),
    "samples": SettingSpec(_whole(1, 10**8), "--samples n, the client's images"),
    "steps_per_epoch": SettingSpec(_whole(1, MAX_STEPS), "--steps-per-epoch S"),
    "drop_last": SettingSpec(_flag, "--drop-last"),
    "scheme": SettingSpec(
        _choice("fedavg", "fedprox", "scaffold", "feddyn", "feddc"), "--scheme NAME", "fedavg"
    ),
    "lambda": SettingSpec(_between(0, 1e6), "--lambda L, of fedprox, feddyn and feddc"),
    "optimizer": SettingSpec(_choice("sgd", "adam", "adamw"), "--optimizer NAME", "sgd"),
    "momentum": SettingSpec(_between(0, 1, below=True), "--momentum G"),
    "nesterov": SettingSpec(_flag, "--nesterov"),
    "weight_decay": SettingSpec(_between(0, 1e6), "--weight-decay W"),
    "betas": SettingSpec(_betas, "--betas B1,B2"),
    "clip": SettingSpec(_between(0, 1e12), "--clip NORM (0: none)"),
    "label_smoothing": SettingSpec(_between(0, 1, below=True), "--label-smoothing E"),
    "lr_schedule": SettingSpec(_schedule, "--lr-schedule NAME", "constant"),
    "history": SettingSpec(_text, "--history DIR, the client's earlier rounds"),
    "joint": SettingSpec(_flag, "--joint/--no-joint"),
    "layer": SettingSpec(_text, "--layer NAME"),
    "classes": SettingSpec(_names, "classes = [...] in rlu.toml"),
    "aux_split": SettingSpec(_text, "--aux-split NAME"),
    "aux_per_class": SettingSpec(_whole(2, 10**6), "--aux-per-class N"),
    "normalize": SettingSpec(_normalise, "--normalize NAME or MEAN/STD", "auto"),
    "image_size": SettingSpec(_whole(1, 4096), "--image-size N"),
    "mode": SettingSpec(_choice("auto", "train", "eval"), "--mode train|eval", "auto"),
    "method": SettingSpec(_methods, "--method NAME (`rlu methods` lists them)", ("auto",)),
    "search": SettingSpec(_choice("checked", "printed", "none"), "--search NAME", "checked"),
    "iterations": SettingSpec(_whole(0, 10_000), "--iterations T"),
    "virtual_clients": SettingSpec(_whole(0, 10_000), "--virtual-clients R", 0),
    "train_accuracy": SettingSpec(_between(0, 1), "--train-accuracy A, of the global model"),
    "train_loss": SettingSpec(_positive, "--train-loss L, of the global model"),
    "confidence": SettingSpec(_between(0.5, 0.999), "--confidence P", 0.9),
    "draws": SettingSpec(_whole(1, 10**8), "--draws M", 10_000),
    "seed": SettingSpec(_whole(0, 2**63 - 1), "--seed N", 0),
    "device": SettingSpec(_text, "--device auto|cpu|cuda[:i]", "auto"),
    "truth": SettingSpec(_text, "--truth FILE"),
    "output": SettingSpec(_text, "--output FILE", beside=False),
    "max_bytes": SettingSpec(_whole(1, 2**50), "--max-bytes N", 2**34, beside=False),
}
