"""What a caller passes → what the steps of the package take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rlu_cli.checkpoints import CheckpointSource
from rlu_cli.settings.layers import Layer, flag_layer
from rlu_cli.types import Auxiliary

ARGUMENT = "argument"  # the source of a setting that was passed to a function

Weights = str | Path | Mapping[str, Tensor]  # a checkpoint file, or a state dict
Images = str | Path | Auxiliary  # a folder, a file, "none", or images that were read before


def weights(given: Weights) -> CheckpointSource:
    """A checkpoint's file or state dict."""
    return given if isinstance(given, Mapping) else Path(given)


def images(given: Images) -> str | Auxiliary:
    """Where the auxiliary images are, or they themselves."""
    return given if isinstance(given, Auxiliary) else str(given)


def arguments(settings: Mapping[str, Any]) -> Layer:
    """Keyword arguments as the settings that rank first."""
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}
    return flag_layer(plain, ARGUMENT)
