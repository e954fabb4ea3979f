"""Settings with their sources: flag > RLU_* > rlu.toml beside the checkpoints > rlu.toml or
[tool.rlu] upwards from the working directory > the run folder > the checkpoint > default.

A file beside what is under inspection is not the user: from there nothing that would run code,
write a file, lift a limit or reach outside its folder is taken.
"""

from __future__ import annotations

from rlu_cli.settings.files import FILE_NAME, file_layers
from rlu_cli.settings.layers import (
    Layer,
    environment_layer,
    flag_layer,
    require,
    resolve,
)
from rlu_cli.settings.specs import INFER, MAX_STEPS, SETTINGS

__all__ = [
    "FILE_NAME",
    "INFER",
    "MAX_STEPS",
    "SETTINGS",
    "Layer",
    "environment_layer",
    "file_layers",
    "flag_layer",
    "require",
    "resolve",
]
