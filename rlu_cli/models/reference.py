"""Build a model from `--model` and `--model-arg`: a named architecture or the user's own code."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from rlu_cli.errors import InputError, UsageError, printable
from rlu_cli.models.architecture import Architecture
from rlu_cli.models.sources import build_from_package, from_package, with_outputs_of
from rlu_cli.models.table import ARCHITECTURES
from rlu_cli.models.user_code import OWN, build_from_code, runs_code


def build_model(
    reference: str,
    *,
    state: Mapping[str, Tensor] | None = None,
    arguments: Mapping[str, Any] = {},
    classes: int | None = None,
) -> nn.Module:
    """Build what `reference` names, with weights still at their initial values.

    state      adapts a named architecture: channels, classes, width, … from its shapes
    arguments  given by the user; override those from `state`
    classes    N, if neither of the two gives it

    Raises UsageError E101 for an unknown name, option or value, InputError E215 when `state` is of
    another architecture, E216 when the user's own code or a package fails, UsageError E107 for a
    package that is not installed.
    """
    if runs_code(reference) or from_package(reference):
        built = (
            build_from_code(reference, arguments, classes)
            if runs_code(reference)
            else build_from_package(reference, arguments, classes, state)
        )
        return built if state is None else with_outputs_of(built, state)
    architecture = _named(reference)
    _check(architecture, arguments)
    inferred = {} if state is None else _read(architecture, state)
    defaults = {} if classes is None else {"num_classes": classes}
    try:
        return architecture.build(**{**defaults, **inferred, **arguments})
    except ValueError as failure:
        raise UsageError("E101", str(failure), hint=_options(architecture)) from failure


def parse_argument(text: str) -> tuple[str, Any]:
    """`K=V` of `--model-arg`: V as a Python literal (0.25, True, (1, 2)), else as text."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise UsageError(
            "E101",
            f'model argument "{printable(text)}" is not of the form name=value',
            hint="for example --model-arg act=silu --model-arg width=0.25",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value


def _named(reference: str) -> Architecture:
    if reference in ARCHITECTURES:
        return ARCHITECTURES[reference]
    shown = printable(reference)
    if reference.endswith(".py"):
        raise UsageError(
            "E101", f"{shown} names a file but no class in it", hint=f"--model {shown}:Net"
        )
    near = get_close_matches(reference.lower(), ARCHITECTURES)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    raise UsageError(
        "E101",
        f'unknown architecture "{shown}"',
        hint=f"{guess}rlu models lists those known; {OWN}",
    )


def _read(architecture: Architecture, state: Mapping[str, Tensor]) -> dict[str, Any]:
    arguments = architecture.read(state)
    if arguments is None:
        raise InputError(
            "E215",
            f"the weights are not those of {architecture.name}",
            facts=architecture.mismatch(state).facts(),
            hint=f"leave --model out to have it recognised; {OWN}",
        )
    return arguments


def _check(architecture: Architecture, arguments: Mapping[str, Any]) -> None:
    wrong = [
        f"{printable(name)}={printable(value, 60)}"
        for name, value in arguments.items()
        if name not in architecture.options or not _allowed(value, architecture.options[name])
    ]
    if wrong:
        raise UsageError(
            "E101",
            f"{architecture.name} cannot be built with {', '.join(wrong)}",
            hint=_options(architecture),
        )


def _allowed(value: Any, choices: tuple[Any, ...]) -> bool:
    default = choices[0]
    if isinstance(default, (str, bool)):
        return type(value) is type(default) and value in choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(default, int):
        return isinstance(value, int) and value > 0
    return math.isfinite(value) and value >= 0


def _options(architecture: Architecture) -> str:
    return f"{architecture.name} takes {', '.join(architecture.usage())}"
