"""Values of several ranks → one value for each setting, with its source."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlu_cli.errors import UsageError, printable
from rlu_cli.settings.specs import AUDITS
from rlu_cli.settings.table import SETTINGS, option_names
from rlu_cli.types import Setting

# Sources of a setting that no file names: typed, or passed to a function.
FLAG, ARGUMENT = "flag", "argument"


@dataclass(frozen=True)
class Layer:
    """Values of one rank, each with its source.

    trusted  whether the user wrote it
    folder   where relative paths start
    """

    values: Mapping[str, Setting]
    trusted: bool = True
    folder: Path = field(default_factory=Path.cwd)


def flag_layer(flags: Mapping[str, Any], source: str = FLAG) -> Layer:
    """What was typed, or given to the Python API; None stands for what was not."""
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    return Layer({name: Setting(value, source) for name, value in given.items()})


def environment_layer(environment: Mapping[str, str] = os.environ) -> Layer:
    """RLU_LR, RLU_BATCH_SIZE, … as settings."""
    variables = {name: f"RLU_{name.upper()}" for name in SETTINGS}
    return Layer(
        {
            name: Setting(environment[variable], variable)
            for name, variable in variables.items()
            if environment.get(variable)
        }
    )


def resolve(layers: Sequence[Layer], command: str) -> dict[str, Setting]:
    """The value of every setting that is given or has a default, first layer first.

    command  whose settings and defaults count; a file may give those of other commands too

    Raises UsageError E101 for an impossible value, E105 for one that a file beside the inspected
    files may not set. What a higher rank overrules is not checked, so that naming a value on the
    command line is a way past either.
    """
    found: dict[str, Setting] = {}
    beside: set[str] = set()
    for layer in layers:
        for name, given in layer.values.items():
            _check_known(name, given)
            if name not in found and _counts(name, command):
                found[name] = _accepted(name, given, layer)
                beside |= set() if layer.trusted else {name}
            elif name in found and _disagrees(name, found[name], given):
                others = (*found[name].contradicted, given)
                found[name] = replace(found[name], contradicted=others)
    if "model_args" in beside:
        _refuse_arguments(found)
    for name, spec in SETTINGS.items():
        default = spec.default_of(command)
        if name not in found and default is not None and _counts(name, command):
            found[name] = Setting(default, "default")
    return found


def _disagrees(name: str, believed: Setting, other: Setting) -> bool:
    """Whether two files say different things of the client or its model.

    What the user typed, or set in the environment, needs no explanation.
    """
    typed = believed.source in (FLAG, ARGUMENT) or believed.source.startswith("RLU_")
    if typed or not SETTINGS[name].evidence:
        return False
    try:
        return bool(SETTINGS[name].parse(other.value) != believed.value)
    except ValueError:  # nothing that the setting can be
        return False


def contradictions(settings: Mapping[str, Setting]) -> list[str]:
    """A sentence for every setting on which two files disagree."""
    return [
        f"contradiction in {name}: {printable(setting.value)} is used, from {setting.source}; "
        + "; ".join(f"{other.source} has {printable(other.value)}" for other in others)
        for name, setting in settings.items()
        if (others := setting.contradicted)
    ]


def _counts(name: str, command: str) -> bool:
    """Whether a setting means something to a command. Audits share theirs."""
    commands = SETTINGS[name].commands
    if command not in AUDITS:
        return command in commands
    return not commands or bool(set(AUDITS) & set(commands))


def _refuse_arguments(found: Mapping[str, Setting]) -> None:
    """The user's own code gets its arguments from the user alone (E105)."""
    from rlu_cli.models import runs_code

    if "model" in found and runs_code(found["model"].value):
        raise UsageError(
            "E105",
            f"refused model_args from {found['model_args'].source}",
            why="the model is the user's own code, and this file is not the user",
            hint=f"give the arguments on the command line: {SETTINGS['model_args'].give}",
        )


def _check_known(name: str, given: Setting) -> None:
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS, 1)
        raise UsageError(
            "E101",
            f"unknown setting {printable(name)!r} in {given.source}",
            hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(SETTINGS)}",
        )


def _accepted(name: str, given: Setting, layer: Layer) -> Setting:
    if not layer.trusted:
        _refuse_unsafe(name, given, layer)
    try:
        parsed = SETTINGS[name].parse(given.value)
    except ValueError as expected:
        raise UsageError(
            "E101",
            f"invalid value for {_said(name, given)}: {printable(given.value)}",
            hint=f"expected {expected}",
        ) from None
    value = str(layer.folder / parsed) if SETTINGS[name].path else parsed
    value = _from_folder(value, layer.folder) if name == "model" else value
    return Setting(value, given.source)


def _said(name: str, given: Setting) -> str:
    """A setting as its source writes it."""
    if given.source == FLAG:
        return option_of(name)
    return name if given.source == ARGUMENT else f"{name} in {given.source}"


def option_of(name: str) -> str:
    """The command line's name of a setting, such as `--batch-size`; of a switch, the one for on."""
    return option_names(name).partition("/")[0]


def _refuse_unsafe(name: str, given: Setting, layer: Layer) -> None:
    """Refuse what a file beside the inspected ones must not decide (E105)."""
    from rlu_cli.models import runs_code

    value, why = given.value, None
    if not SETTINGS[name].beside:
        why = "a file beside what is under inspection is not the user"
    elif _orders_work(name, value):
        why = f"more than {SETTINGS[name].most:,} would take long, and this file is not the user"
    elif name == "model" and isinstance(value, str) and runs_code(value):
        why = "it would run code that the user did not name"
    elif isinstance(value, str) and _reaches_outside(name, value, layer.folder):
        why = f"it lies outside {printable(layer.folder)}"
    if why is not None:
        raise UsageError(
            "E105",
            f"refused {name} = {printable(value)!r} from {given.source}",
            why=why,
            hint=f"if you want it, name it on the command line: {SETTINGS[name].give}",
        )


def _orders_work(name: str, value: Any) -> bool:
    """Whether a number is above what a file beside the inspected ones may ask for."""
    most = SETTINGS[name].most
    try:
        return most is not None and SETTINGS[name].parse(value) > most
    except ValueError:  # said where the value is taken
        return False


def _reaches_outside(name: str, value: str, folder: Path) -> bool:
    """Whether a path, or the folder of a model `hf:DIR`, lies outside the file's folder."""
    source, _, place = value.partition(":")
    if name == "model":
        return source == "hf" and not _inside(folder, place)
    return SETTINGS[name].path and not _inside(folder, value)


def _from_folder(model: Any, folder: Path) -> Any:
    """`hf:DIR` with a relative DIR taken from the folder of the file that names it."""
    source, colon, place = str(model).partition(":")
    here = folder == Path.cwd() or source != "hf"
    return model if here else f"{source}{colon}{folder / place}"


def _inside(folder: Path, value: str) -> bool:
    try:
        return (folder / value).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # a name that no file can have
        return False


def require(settings: Mapping[str, Setting], names: Sequence[str], notes: Sequence[str]) -> None:
    """Raise UsageError E102 that lists every missing one of `names`, and how to give it.

    notes  further lines on what the files show, such as what a counter says
    """
    missing = [name for name in names if name not in settings]
    if missing:
        raise UsageError(
            "E102",
            f"missing setting{'s' * (len(missing) > 1)}: {', '.join(missing)}",
            facts=[(name, SETTINGS[name].give) for name in missing]
            + [("note", note) for note in notes],
            hint="give each on the command line, as RLU_NAME, or in an rlu.toml",
        )
