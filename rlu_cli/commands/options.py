"""Options made from the table of settings, and the few that are none."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from rlu_cli.settings.choices import table_names
from rlu_cli.settings.specs import REPORT, SettingSpec
from rlu_cli.settings.table import option_names, taken_by


def _formats() -> list[str]:
    return list(table_names("reports/__init__.py", "FORMATS"))


def completed(choices: Callable[[], Any]) -> Callable[[str], list[str]]:
    """What a shell completes: the choices that begin with what was typed."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices() if choice.startswith(incomplete)]

    return complete


Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="table or json.",
        rich_help_panel=REPORT,
        autocompletion=completed(_formats),
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace an existing --output file.", rich_help_panel=REPORT),
]
ShowSettings = Annotated[
    bool,
    typer.Option(
        "--show-settings",
        help="Show every setting with its source, and stop.",
        rich_help_panel=REPORT,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only the report.", rich_help_panel=REPORT)
]


def with_settings(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for every setting it takes.

    The decorated function gets the values as one dict, `flags`, by the settings' names; what was
    not typed is None there. Options of the first panel come first in `--help`.
    """
    specs = taken_by(command)
    ordered = sorted(specs, key=lambda name: command not in specs[name].basic)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(**given: Any) -> None:
            flags = {name: given.pop(_parameter(name)) for name in specs}
            function(**given, flags=flags)

        own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [one for one in own if one.name != "flags"]
        first = [one for one in parameters if _in_first_panel(one)]
        last = [one for one in parameters if not _in_first_panel(one)]
        options = [_option(name, specs[name], command) for name in ordered]
        whole = [*first, *options, *last]
        keyed = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in whole]
        run.__signature__ = inspect.Signature(keyed)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in keyed}
        del run.__wrapped__
        run.__doc__ = _paragraphs(function.__doc__ or "")
        return run

    return decorate


def _in_first_panel(parameter: inspect.Parameter) -> bool:
    """Whether `--help` shows an option of the command's own before all settings."""
    return all(one.rich_help_panel is None for one in parameter.annotation.__metadata__)


def _paragraphs(text: str) -> str:
    """A docstring whose paragraphs are lines of their own, so that a terminal can wrap them."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if p.startswith("\b") else p.replace("\n", " ") for p in paragraphs)


def _parameter(name: str) -> str:
    """The Python parameter of a setting: `lambda` is a word of the language."""
    return f"{name}_"


def _option(name: str, spec: SettingSpec, command: str) -> inspect.Parameter:
    names = option_names(name)
    switch = "/" in names
    kind: Any = bool | None if switch else list[str] | None if spec.repeats else str | None
    known = spec.choices()
    option = typer.Option(
        names,
        help=_help(spec, command),
        rich_help_panel=None if command in spec.basic else spec.panel,
        show_default=False,
        autocompletion=completed(spec.choices) if known else None,
        metavar=None if switch else spec.metavar,
    )
    return inspect.Parameter(
        _parameter(name),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _help(spec: SettingSpec, command: str) -> str:
    """The help with its default, in round brackets: square ones are markup."""
    default, text = spec.default_of(command), spec.help_of(command)
    if default is None or default is False:
        return text
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
    return f"{text.removesuffix('.')} (default: {shown})."
