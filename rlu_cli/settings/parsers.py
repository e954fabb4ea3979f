"""Values as they are given (TOML types or text) → values; ValueError says what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ALL_METHODS = "all"  # every method that trains nothing
_SLOWEST, _FASTEST = 1e-12, 1e6  # learning rates beyond overflow what is computed from them
INFER = "infer"  # a learning rate that is to be estimated from the files


def whole(low: int, high: int) -> Callable[[Any], int]:
    """A whole number from `low` to `high`."""

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


def positive(value: Any) -> float:
    """A finite number above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("a number above 0")
    return number


def learning_rate(value: Any) -> float | str:
    """A learning rate, or `infer`."""
    if value == INFER:
        return INFER
    try:
        return between(_SLOWEST, _FASTEST)(positive(value))
    except ValueError as expected:
        raise ValueError(f"{expected}, or {INFER}") from None


def between(low: float, high: float, *, below: bool = False) -> Callable[[Any], float]:
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


def concentrations(value: Any) -> tuple[float, float]:
    """The range of a Dirichlet concentration, "LOW:HIGH", or a single one."""
    parse = between(1e-3, 1e6)
    try:
        ends = [parse(part) for part in value.split(":")] if isinstance(value, str) else [value]
        low, high = parse(ends[0]), parse(ends[-1])
    except ValueError:
        low, high, ends = 1.0, 0.0, []
    if len(ends) > 2 or not low <= high:
        raise ValueError("a concentration from 0.001 to 1e6, or a range of them as 0.1:1")
    return low, high


def switch(value: Any) -> bool:
    """True or false, as TOML or as text."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in known:
        raise ValueError("true or false")
    return known[value.lower()]


def betas(value: Any) -> tuple[float, float]:
    """β1 and β2 of Adam."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or len(listed) != 2:
        raise ValueError("two numbers, as in 0.9,0.999")
    first, second = map(between(0, 1, below=True), listed)
    return first, second


def class_weights(value: Any) -> tuple[float, ...]:
    """Weights of all classes in the loss, each positive."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or len(listed) < 2:
        raise ValueError("a positive number for each class, as in 1,0.5,2")
    return tuple(map(between(1e-6, 1e6), listed))


def schedule(value: Any) -> str:
    """A learning-rate schedule, checked and kept as text."""
    from rlu_cli.schemes import parse_schedule

    parse_schedule(text(value))
    return str(value)


def choice(*names: str) -> Callable[[Any], str]:
    """One of some names."""

    def parse(value: Any) -> str:
        if value not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return str(value)

    return parse


def scheme(value: Any) -> str:
    """A federated scheme."""
    from rlu_cli.schemes import SCHEMES

    return choice(*SCHEMES)(value)


def text(value: Any) -> str:
    """Any text but an empty one."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a non-empty text")
    return value


def client_numbers(value: Any) -> tuple[int, ...]:
    """Numbers of clients, sorted."""
    listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    numbers = [_whole_number(one) for one in listed] if isinstance(listed, (list, tuple)) else []
    known = [number for number in numbers if number is not None and number >= 0]
    if not known or len(known) < len(numbers):
        raise ValueError("a list of client numbers, as in 0,3")
    return tuple(sorted(set(known)))


def class_names(value: Any) -> tuple[str, ...]:
    """Names of all classes, each once."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(n, str) and n for n in listed):
        raise ValueError("a list of class names in the order of the output layer")
    if not listed or len(set(listed)) != len(listed):
        raise ValueError("class names that are all different")
    return tuple(listed)


def model_arguments(value: Any) -> dict[str, Any]:
    """Arguments of a model by name."""
    from rlu_cli.models import parse_argument

    if isinstance(value, Mapping):
        return dict(value)
    listed = value.split(";") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(t, str) for t in listed):
        raise ValueError("a table of names and values, or texts name=value")
    return dict(parse_argument(one) for one in listed)


def methods(value: Any) -> tuple[str, ...]:
    """Names of methods, `all` replaced by those that train nothing."""
    from rlu_cli.attacks import ATTACKS, AUTO

    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ValueError("a list of methods")
    listed = [name.strip() if isinstance(name, str) else "" for name in listed]
    quick = tuple(name for name, method in ATTACKS.items() if not method.trains)
    wanted = [n for name in listed for n in (quick if name == ALL_METHODS else (name,))]
    if not set(wanted) <= {AUTO, *ATTACKS}:
        raise ValueError(f"{ALL_METHODS}, or some of {', '.join((AUTO, *ATTACKS))}")
    return tuple(dict.fromkeys(wanted))


def normalise(value: Any) -> str:
    """An input scaling, checked and kept as text."""
    from rlu_cli.models.input_scaling import AUTO, AUX, parse_normalisation

    scaling = text(value)
    if scaling not in (AUTO, AUX):
        parse_normalisation(scaling)
    return scaling
