"""Named architectures, one file each, and references to a user's own model."""

from __future__ import annotations

from rlu_cli.models.activations import ACTIVATIONS
from rlu_cli.models.architecture import Architecture
from rlu_cli.models.fingerprint import packaged_model
from rlu_cli.models.fit import load_weights
from rlu_cli.models.forward_order import LogitLayers, logit_layers
from rlu_cli.models.inputs import input_shape
from rlu_cli.models.layouts import possible_layouts
from rlu_cli.models.reference import build_model, parse_argument
from rlu_cli.models.source import saved_names
from rlu_cli.models.sources import SOURCES, from_package, names_files
from rlu_cli.models.table import ARCHITECTURES, Candidate, recognise
from rlu_cli.models.user_code import runs_code

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "SOURCES",
    "Architecture",
    "Candidate",
    "LogitLayers",
    "build_model",
    "from_package",
    "input_shape",
    "load_weights",
    "logit_layers",
    "names_files",
    "packaged_model",
    "parse_argument",
    "possible_layouts",
    "recognise",
    "runs_code",
    "saved_names",
]
