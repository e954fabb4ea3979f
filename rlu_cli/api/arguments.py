"""What a caller passes → what the steps of the package take."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import Tensor

from rlu_cli.checkpoints import CheckpointSource
from rlu_cli.errors import UsageError, printable
from rlu_cli.settings.layers import ARGUMENT, Layer, flag_layer
from rlu_cli.settings.table import taken_by
from rlu_cli.types import Auxiliary

Weights = str | Path | Mapping[str, Tensor]  # a checkpoint file, or a state dict
Images = str | Path | Auxiliary  # a folder, a file, "none", or images that were read before


def weights(given: Weights) -> CheckpointSource:
    """A checkpoint's file or state dict."""
    return given if isinstance(given, Mapping) else Path(given)


def images(given: Images) -> str | Auxiliary:
    """Where the auxiliary images are, or they themselves."""
    return given if isinstance(given, Auxiliary) else str(given)


def arguments(settings: Mapping[str, Any], command: str) -> Layer:
    """Keyword arguments as the settings that rank first; `lambda_` stands for `lambda`.

    Raises UsageError E101 for a setting that the command does not take.
    """
    given = {("lambda" if name == "lambda_" else name): v for name, v in settings.items()}
    known = {*taken_by(command), "classes"} - {"output"}
    unknown = [name for name in given if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        raise UsageError(
            "E101",
            f"unknown setting for {command}: {printable(unknown[0])}",
            hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}",
        )
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}
    return flag_layer(plain, ARGUMENT)
