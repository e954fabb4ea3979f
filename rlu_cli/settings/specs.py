"""What is known about a setting: how it is read, shown and completed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Commands that take settings, as `SettingSpec.commands` names them.
ATTACK, CALIBRATE, SIMULATE = "attack", "calibrate", "simulate"
AUDITS = (ATTACK, CALIBRATE)
ALL = (ATTACK, CALIBRATE, SIMULATE)

# Panels of `--help`; None is the first one, for what most people need.
CLIENT, SCHEME = "How the client trained", "Federated scheme"
MODEL, IMAGES = "Model", "Images"
ESTIMATE, REPORT, LIMITS = "Estimate", "Report", "Machine and limits"
FEDERATION, BEFORE, DEFENCE = "Federation", "Before the attacked round", "Defences"


@dataclass(frozen=True)
class SettingSpec:
    """One setting: a row of the table that parsing, help, completion and errors are made from.

    parse     value as given (TOML type or text) → value; raises ValueError with what is expected
    give      how to give it, for the error that lists what is missing
    help      one sentence for `--help`
    helps     of single commands, where it differs
    metavar   what stands for the value there
    commands  those that take it as an option
    basic     those that show it in the first panel of `--help`
    panel     where the others show it
    default   taken when it is not given; None where there is none
    defaults  of single commands, where they differ
    option    its names, where they do not follow from the setting's: "--a/--no-a" is a switch
    repeats   whether the option may be given several times
    choices   → the values a shell completes
    path      whether the value is a path, taken from the folder of the file that names it
    beside    whether a file beside what is inspected may give it
    most      largest number that such a file may give: more would order work; None for any
    evidence  whether it describes the client or its model, so that two files should agree on it
    """

    parse: Callable[[Any], Any]
    give: str
    help: str
    helps: Mapping[str, str] = field(default_factory=dict)
    metavar: str = "TEXT"
    commands: tuple[str, ...] = AUDITS
    basic: tuple[str, ...] = ()
    panel: str | None = None
    default: Any = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    option: str = ""
    repeats: bool = False
    choices: Callable[[], Sequence[str]] = tuple
    path: bool = False
    beside: bool = True
    most: int | None = None
    evidence: bool = False

    def help_of(self, command: str) -> str:
        """What `--help` of one command says."""
        return self.helps.get(command, self.help)

    def default_of(self, command: str) -> Any:
        """The default under one command; None where there is none."""
        return self.defaults.get(command, self.default)
