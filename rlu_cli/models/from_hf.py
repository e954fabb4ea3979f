"""`hf:DIR`: an image classifier described by the config.json of a Hugging Face folder.

No code from the folder is run: a configuration that needs its own is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlu_cli.errors import InputError, printable
from rlu_cli.models.source import SAVED_NAMES, Blueprint, ModelSource, package

_ROOM = 4  # numbers of the model over those of the checkpoint, from which it is another model


def build(blueprint: Blueprint) -> nn.Module:
    """Raises InputError E201 without a config.json, E215 for another model, UsageError E107."""
    transformers = package("transformers")
    classifier = transformers.AutoModelForImageClassification
    folder = Path(blueprint.name)
    if not (folder / "config.json").is_file():
        raise InputError(
            "E201",
            f"there is no config.json in {printable(folder)}",
            hint="--model hf:DIR names a folder that save_pretrained wrote",
        )
    safely = {"local_files_only": True, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(folder, **safely)
    if blueprint.classes is not None:
        config.num_labels = blueprint.classes
    for name, value in blueprint.arguments.items():
        setattr(config, name, value)
    with torch.device("meta"):  # a folder beside the evidence must not say how much is allocated
        sketch = classifier.from_config(config, trust_remote_code=False)
    _refuse_other(sketch, blueprint.state, folder)
    model: Any = classifier.from_config(config, trust_remote_code=False)
    setattr(model, SAVED_NAMES, _saved_names(model))
    assert isinstance(model, nn.Module)
    return model


def _refuse_other(sketch: nn.Module, state: Mapping[str, Tensor] | None, folder: Path) -> None:
    if state is None:
        return
    ours = sum(parameter.numel() for parameter in sketch.parameters())
    theirs = sum(tensor.numel() for tensor in state.values())
    if ours > _ROOM * theirs + 10**6:
        raise InputError(
            "E215",
            f"the weights are not those of the model in {printable(folder)}: it has {ours:,} "
            f"numbers, the checkpoint {theirs:,}",
            hint="give the folder that belongs to the checkpoint with --model hf:DIR",
        )


def _saved_names(model: Any) -> dict[str, str]:
    """Names in files that save_pretrained writes → the model's own; they differ in transformers 5.

    Empty where the installed version renames nothing, or not tensor by tensor.
    """
    names = list(model.state_dict())
    try:
        loading: Any = import_module("transformers.core_model_loading")
        numbered = {name: torch.tensor([float(n)]) for n, name in enumerate(names)}
        saved = loading.revert_weight_conversion(model, numbered)
        return {name: names[int(number)] for name, number in saved.items()}
    except Exception:  # an interface of the package that may change
        return {}


SOURCE = ModelSource(
    "hf:DIR", "image classifier of the config.json in a folder (transformers)", build
)
