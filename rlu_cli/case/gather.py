"""Gather the settings of a case from options, environment, files and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlu_cli.case.batchnorm_counters import inferred_epochs
from rlu_cli.case.run_settings import run_layers
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.runs import Chosen
from rlu_cli.settings.files import file_layers
from rlu_cli.settings.layers import Layer, environment_layer, resolve
from rlu_cli.settings.specs import ATTACK
from rlu_cli.settings.table import SETTINGS
from rlu_cli.types import Setting


def gather_settings(
    flags: Layer,
    paths: Sequence[Path],
    pair: CheckpointPair | None,
    command: str = ATTACK,
    run: Chosen | None = None,
) -> dict[str, Setting]:
    """Every setting that is given or has a default; missing ones are not checked here.

    flags    options on the command line, or arguments of the API
    paths    inspected files; settings beside the last one take precedence
    pair     opened checkpoints, which may contain settings and whose BatchNorm counters give
             the epochs if nothing else does; None before they are opened
    command  command whose settings and defaults apply
    run      pair of a run folder, whose files tell settings; None for none

    Raises UsageError E101 and E105 as `resolve` does.
    """
    checkpoints = [] if pair is None else [pair.after, pair.before]
    facts = [{n: s for n, s in c.facts.items() if n in SETTINGS} for c in checkpoints]
    evidence, own = file_layers([*reversed(paths)], Path.cwd())
    above = [flags, environment_layer(), *evidence]
    layers = [*above, *run_layers(run, above, pair), *map(Layer, facts), *own]
    settings = resolve(layers, command)
    epochs = None if pair is None else inferred_epochs(settings, pair)
    return settings if epochs is None else {**settings, "epochs": epochs}
