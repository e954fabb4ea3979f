"""Every setting by name, in the order in which `--help` shows them."""

from __future__ import annotations

from dataclasses import replace

from rlu_cli.settings.client import CLIENT_SETTINGS
from rlu_cli.settings.estimate import ESTIMATE_SETTINGS
from rlu_cli.settings.federation import FEDERATION_SETTINGS
from rlu_cli.settings.inputs import INPUT_SETTINGS
from rlu_cli.settings.specs import SettingSpec

# Of the inputs, those that describe the model and what the client fed it; of the client, all.
_EVIDENCE = (*CLIENT_SETTINGS, "model", "model_args", "layer", "classes", "normalize", "image_size")

SETTINGS: dict[str, SettingSpec] = {
    name: replace(spec, evidence=name in _EVIDENCE and not spec.path)
    for name, spec in (
        CLIENT_SETTINGS | FEDERATION_SETTINGS | INPUT_SETTINGS | ESTIMATE_SETTINGS
    ).items()
}


def taken_by(command: str) -> dict[str, SettingSpec]:
    """The settings that a command takes as options."""
    return {name: spec for name, spec in SETTINGS.items() if command in spec.commands}


def option_names(name: str) -> str:
    """What the command line calls a setting, such as `--batch-size` or `--flip/--no-flip`."""
    return SETTINGS[name].option or f"--{name.replace('_', '-')}"
