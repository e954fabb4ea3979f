"""Every setting of a case, from all the places where one may stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlu_cli.case.batchnorm_counters import inferred_epochs
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.settings import (
    SETTINGS,
    Layer,
    environment_layer,
    file_layers,
    flag_layer,
    resolve,
)
from rlu_cli.types import Setting


def gather_settings(
    flags: Mapping[str, Any], paths: Sequence[Path], pair: CheckpointPair | None
) -> dict[str, Setting]:
    """Every setting that is given anywhere or has a default, before anything is missing.

    paths  the inspected files; settings beside the last one rank first
    pair   the opened checkpoints, which may hold settings themselves and whose BatchNorm counters
           give the epochs where nothing else does; None before they are opened

    Raises UsageError E101 and E105 as `resolve` does.
    """
    checkpoints = [] if pair is None else [pair.after, pair.before]
    facts = [{n: s for n, s in c.facts.items() if n in SETTINGS} for c in checkpoints]
    layers = [flag_layer(flags), environment_layer(), *file_layers([*reversed(paths)], Path.cwd())]
    settings = resolve([*layers, *map(Layer, facts)])
    epochs = None if pair is None else inferred_epochs(settings, pair)
    return settings if epochs is None else {**settings, "epochs": epochs}
