"""A package that models are built from by name: `torchvision:resnet34`."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from rlu_cli.errors import UsageError, printable

SAVED_NAMES = "names_in_saved_files"  # attribute of a model: name in files → its own


@dataclass(frozen=True)
class Blueprint:
    """What a model is to be built like.

    name       after the colon
    arguments  given by the user, for the package's own function
    classes    N; None for the package's default
    state      weights it is built for; None if there are none
    """

    name: str
    arguments: Mapping[str, Any]
    classes: int | None
    state: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class ModelSource:
    """A row of `SOURCES`.

    usage    how a model is named
    summary  what it is, for `rlu models`
    build    the model, with initial weights
    """

    usage: str
    summary: str
    build: Callable[[Blueprint], nn.Module]


def saved_names(model: nn.Module) -> Mapping[str, str]:
    """Names in saved files → the model's own, where they differ; else empty."""
    found: Mapping[str, str] = getattr(model, SAVED_NAMES, {})
    return found


def package(name: str) -> ModuleType:
    """The installed package; UsageError E107 where there is none.

    A file of that name in the working directory is not it: nobody asked to run that.
    """
    spec = importlib.util.find_spec(name)
    where = None if spec is None or spec.origin is None else Path(spec.origin).resolve().parent
    if where in (None, Path.cwd().resolve()):
        raise _absent(name, "it is not installed")
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as failure:  # of another version of PyTorch
        raise _absent(name, printable(f"{type(failure).__name__}: {failure}")) from failure


def _absent(name: str, why: str) -> UsageError:
    return UsageError(
        "E107",
        f"this model needs the package {name}",
        why=why,
        hint=f"pip install {name}; or name your own: --model path/model.py:Net",
    )


def unknown(source: str, name: str, names: Collection[str]) -> UsageError:
    near = get_close_matches(name, names, 3)
    return UsageError(
        "E101",
        f"{source} has no model {printable(name)!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else f"{source} lists its models",
    )
