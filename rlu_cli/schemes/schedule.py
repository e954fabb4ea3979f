"""Learning-rate schedules within a round: text → the rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable

_LARGEST = 1e6  # of a rate and of a factor on it
Shape = Callable[[float, int, int], float]  # (rate, step, steps) → rate of the step


def learning_rates(rate: float, steps: int, schedule: str = "constant") -> tuple[float, ...]:
    """Learning rate of each of the `steps` steps of a round that starts at `rate`.

    schedule  constant; step:K:G, times G every K steps; cosine:T, half a cosine to 0 over T steps;
              linear:END, linear to the rate END at the last step

    Raises ValueError that names what is expected.
    """
    shape = parse_schedule(schedule)
    try:
        rates = tuple(shape(rate, step, steps) for step in range(steps))
    except OverflowError:
        rates = (math.inf,)
    if not max(rates) < math.inf:
        raise ValueError("a schedule whose rates are finite")
    if rates[0] <= 0 or min(rates) < 0:
        raise ValueError("a schedule whose rates are positive")
    return rates


def parse_schedule(text: str) -> Shape:
    """Parse a schedule. Raises ValueError that names what is expected."""
    name, *values = str(text).split(":")
    try:
        return _SHAPES[name](*map(float, values))
    except (KeyError, TypeError, ValueError):
        raise ValueError("constant, step:K:G, cosine:T or linear:END") from None


def _constant() -> Shape:
    return lambda rate, step, steps: rate


def _step(every: float, factor: float) -> Shape:
    if not 1 <= every < math.inf or every != int(every) or not 0 < factor <= _LARGEST:
        raise ValueError
    return lambda rate, step, steps: rate * factor ** (step // int(every))


def _cosine(period: float) -> Shape:
    if not 1 <= period < math.inf:
        raise ValueError
    return lambda rate, step, steps: rate * (1 + math.cos(math.pi * min(step, period) / period)) / 2


def _linear(end: float) -> Shape:
    if not 0 <= end <= _LARGEST:
        raise ValueError
    return lambda rate, step, steps: rate + (end - rate) * (step / max(1, steps - 1))


_SHAPES: dict[str, Callable[..., Shape]] = {
    "constant": _constant,
    "step": _step,
    "cosine": _cosine,
    "linear": _linear,
}
