"""Which settings a case cannot do without, and whether they are all there."""

from __future__ import annotations

from collections.abc import Mapping

from rlu_cli.attacks import ATTACKS, AUTO
from rlu_cli.case.batchnorm_counters import step_hints
from rlu_cli.checkpoints import CheckpointPair
from rlu_cli.errors import UsageError
from rlu_cli.local_training.description import NONLINEAR
from rlu_cli.schemes import SCHEMES
from rlu_cli.settings.layers import require
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Setting


def check_complete(settings: Mapping[str, Setting], pair: CheckpointPair) -> None:
    """Whether nothing is missing.

    Raises UsageError E102, listing every missing setting, or for `--lr infer` where no rate can be.
    """
    require(settings, _needed(settings, pair), step_hints(settings, pair))
    if "lr" not in settings or settings["lr"].value != INFER:
        return
    names = [settings["optimizer"].value, "clip" if _given(settings, "clip") else ""]
    nonlinear = [NONLINEAR[name] for name in names if name in NONLINEAR]
    why = "; ".join(nonlinear) or _hides_rate(settings, pair)
    if why is not None:
        raise UsageError(
            "E102",
            "the learning rate cannot be inferred",
            why=why,
            hint="leave --lr out: BatchNorm buffers are read without it"
            if nonlinear and pair.steps
            else "give it with --lr ETA",
        )


def require_local_training(settings: Mapping[str, Setting]) -> None:
    """Raises UsageError E102 unless the settings say how clients train."""
    names = ["lr", "epochs"]
    names += ["batch_size"] if "samples" in settings else []
    scheme = SCHEMES[settings["scheme"].value]
    require(settings, (*names, *["lambda"] * scheme.takes_lambda), ())


def _needed(settings: Mapping[str, Setting], pair: CheckpointPair) -> tuple[str, ...]:
    """What cannot be left out: a full pass over the samples has steps only with a batch size, a
    scheme may have a λ, and one with memory needs the client's earlier rounds. The learning rate
    can be found by a method that reads BatchNorm buffers, of a client whose steps it only scales.
    """
    names = ["lr", "epochs"] if _hides_rate(settings, pair) else ["epochs"]
    if "samples" in settings:
        names.append("batch_size")
    scheme = SCHEMES[settings["scheme"].value]
    if scheme.takes_lambda:
        names.append("lambda")
    if scheme.remembers or ("joint" in settings and settings["joint"].value):
        names.append("history")
    return tuple(names)


def _hides_rate(settings: Mapping[str, Setting], pair: CheckpointPair) -> str | None:
    """Why the learning rate cannot follow from the files; None where it may."""
    methods = settings["method"].value
    if all(name != AUTO and ATTACKS[name].needs_lr for name in methods):
        return "no method asked for finds it: --method fusion does"
    mixed = [name for name in ("weight_decay", "lambda") if _given(settings, name)]
    if mixed or _remembers(settings):
        return f"with {' and '.join(mixed) or 'memory'} it does more than scale the update"
    if not pair.steps:
        return "it takes a model with BatchNorm, and counters that show the client's steps"
    return None


def _given(settings: Mapping[str, Setting], name: str) -> bool:
    return name in settings and bool(settings[name].value)


def _remembers(settings: Mapping[str, Setting]) -> bool:
    """Whether something from earlier rounds, of the scheme or of momentum, enters the update."""
    momentum = "momentum" in settings and settings["momentum"].value and "history" in settings
    return SCHEMES[settings["scheme"].value].remembers or bool(momentum)
