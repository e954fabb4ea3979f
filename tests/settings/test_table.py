"""Every row of the table of settings: its help, option, default and choices."""

from __future__ import annotations

import pytest

from rlu_cli.settings import parsers
from rlu_cli.settings.client import CLIENT_SETTINGS
from rlu_cli.settings.estimate import ESTIMATE_SETTINGS
from rlu_cli.settings.federation import FEDERATION_SETTINGS
from rlu_cli.settings.inputs import INPUT_SETTINGS
from rlu_cli.settings.specs import ALL, ATTACK, AUDITS, CALIBRATE, SIMULATE, SettingSpec
from rlu_cli.settings.table import SETTINGS, taken_by

SWITCHES = {name for name, spec in SETTINGS.items() if spec.parse is parsers.switch}
UNFINISHED = ("step:", "cosine:", "linear:")  # completions that a number follows


CHOICES = [(name, choice) for name, spec in SETTINGS.items() for choice in spec.choices()]


def test_no_setting_is_in_two_tables() -> None:
    parts = (CLIENT_SETTINGS, FEDERATION_SETTINGS, INPUT_SETTINGS, ESTIMATE_SETTINGS)
    assert sum(map(len, parts)) == len(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_name_is_a_python_name_in_lower_case(name: str) -> None:
    assert name.isidentifier()
    assert name == name.lower()


@pytest.mark.parametrize("name", SETTINGS)
def test_help_is_a_short_sentence(name: str) -> None:
    text = SETTINGS[name].help
    assert text.endswith(".")
    assert not text.endswith("..")
    assert text == text.strip()
    assert 0 < len(text) <= 130
    assert "\n" not in text


@pytest.mark.parametrize("name", SETTINGS)
def test_help_has_no_square_brackets_which_are_markup(name: str) -> None:
    assert "[" not in SETTINGS[name].help


@pytest.mark.parametrize("name", SETTINGS)
def test_how_to_give_it_is_an_option_or_a_line_of_a_file(name: str) -> None:
    spec = SETTINGS[name]
    if spec.commands:
        option = spec.option.partition("/")[0] or f"--{name.replace('_', '-')}"
        assert spec.give.startswith(option)
    else:
        assert "rlu.toml" in spec.give
        assert name in spec.give


@pytest.mark.parametrize("name", SETTINGS)
def test_what_takes_a_value_has_a_name_for_it_and_a_switch_has_none(name: str) -> None:
    spec = SETTINGS[name]
    if name in SWITCHES:
        assert spec.option.startswith(f"--{name.replace('_', '-')}/--")
        assert spec.metavar == SettingSpec(parsers.switch, "", "").metavar
    elif spec.commands:
        assert spec.metavar
        assert spec.metavar != "TEXT"
        assert "/" not in spec.option


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_belongs_to_known_commands_and_to_one_panel(name: str) -> None:
    spec = SETTINGS[name]
    assert set(spec.commands) <= set(ALL)
    assert set(spec.basic) <= set(spec.commands)
    if set(spec.commands) - set(spec.basic):
        assert spec.panel is not None


@pytest.mark.parametrize("command", ALL)
@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_is_a_value_that_the_parser_takes(name: str, command: str) -> None:
    spec = SETTINGS[name]
    default = spec.default_of(command)
    if default is not None:
        assert spec.parse(default) == default


@pytest.mark.parametrize("name", SETTINGS)
def test_defaults_of_single_commands_are_of_commands_that_take_it(name: str) -> None:
    assert set(SETTINGS[name].defaults) <= set(SETTINGS[name].commands)


@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_what_a_shell_completes_is_taken(name: str, choice: str) -> None:
    completed = f"{choice}2:0.5" if choice == "step:" else choice
    completed = f"{choice}2" if choice in UNFINISHED[1:] else completed
    SETTINGS[name].parse(completed)


def test_a_file_beside_what_is_inspected_may_give_all_but_outputs_limits_and_work() -> None:
    assert {n for n, spec in SETTINGS.items() if not spec.beside} == {
        *("output", "max_bytes", "virtual_clients", "method", "effort")
    }


def test_paths_are_known_as_such() -> None:
    paths = {name for name, spec in SETTINGS.items() if spec.path}
    assert paths == {"truth", "history", "init", "output"}


@pytest.mark.parametrize("command", ALL)
def test_a_command_takes_the_settings_that_name_it_in_the_tables_order(command: str) -> None:
    taken = taken_by(command)
    assert list(taken) == [n for n in SETTINGS if command in SETTINGS[n].commands]
    assert all(taken[name] is SETTINGS[name] for name in taken)


def test_an_unknown_command_takes_nothing() -> None:
    assert taken_by("inspect") == {}


def test_what_describes_a_client_is_taken_by_all_three_commands() -> None:
    for name in ("epochs", "lr", "batch_size", "samples", "momentum", "scheme", "lambda", "seed"):
        assert all(name in taken_by(command) for command in ALL), name


def test_what_one_command_alone_can_use_is_taken_by_it_alone() -> None:
    owners = {
        "truth": {ATTACK},
        "history": {ATTACK},
        "joint": {ATTACK},
        "draws": set(AUDITS),
        "clients": {SIMULATE},
        "noise": {SIMULATE},
        "alpha": {CALIBRATE, SIMULATE},
        "method": set(AUDITS),
        "output": set(AUDITS),
    }
    for name, commands in owners.items():
        assert {command for command in ALL if name in taken_by(command)} == commands, name


@pytest.mark.parametrize(
    ("name", "command", "default"),
    [
        ("epochs", ATTACK, None),
        ("epochs", CALIBRATE, None),
        ("epochs", SIMULATE, 1),
        ("lr", ATTACK, None),
        ("lr", SIMULATE, 0.01),
        ("batch_size", ATTACK, None),
        ("batch_size", SIMULATE, 32),
        ("model", ATTACK, None),
        ("model", SIMULATE, "lenet5"),
        ("normalize", ATTACK, "auto"),
        ("normalize", SIMULATE, "half"),
        ("aux_per_class", ATTACK, None),
        ("aux_per_class", SIMULATE, 100),
        ("virtual_clients", ATTACK, 0),
        ("virtual_clients", CALIBRATE, 16),
        ("method", CALIBRATE, ("auto",)),
        ("optimizer", SIMULATE, "sgd"),
        ("confidence", ATTACK, 0.9),
    ],
)
def test_defaults_may_differ_by_command(name: str, command: str, default: object) -> None:
    assert SETTINGS[name].default_of(command) == default


def test_a_row_says_only_what_differs_from_the_usual() -> None:
    plain = SettingSpec(parsers.text, "--x", "X.")
    assert plain.commands == AUDITS
    assert plain.beside
    assert not plain.path
    assert not plain.repeats
    assert list(plain.choices()) == []
    assert plain.default_of(ATTACK) is None
