"""Which settings a case requires, and whether any is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlu_cli.attacks import ATTACKS, AUTO
from rlu_cli.case.batchnorm_counters import step_hints
from rlu_cli.checkpoints import SCHEDULED, CheckpointPair
from rlu_cli.errors import UsageError
from rlu_cli.local_training.description import NONLINEAR
from rlu_cli.schemes import SCHEMES
from rlu_cli.settings.layers import require
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Setting


def check_complete(
    settings: Mapping[str, Setting], pair: CheckpointPair, notes: Sequence[str] = ()
) -> None:
    """Check that no required setting is missing.

    notes  what else is known of those that are, in sentences

    Raises UsageError E102 that lists every missing setting, or if `--lr infer` is impossible.
    """
    hints = [*step_hints(settings, pair), *_rate_hints(settings, pair), *notes]
    require(settings, _needed(settings, pair), hints)
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
            hint="omit --lr: the BatchNorm buffers do not depend on it"
            if nonlinear and pair.steps
            else "give it with --lr ETA",
        )


def require_local_training(settings: Mapping[str, Setting]) -> None:
    """Raise UsageError E102 unless the settings describe local training completely."""
    names = ["lr", "epochs"]
    names += ["batch_size"] if "samples" in settings else []
    scheme = SCHEMES[settings["scheme"].value]
    require(settings, (*names, *["lambda"] * scheme.takes_lambda), ())
    if settings["lr"].value == INFER:
        raise UsageError(
            "E102",
            "the learning rate cannot be inferred",
            why="there is no client's checkpoint to infer it from",
            hint="give it with --lr ETA",
        )


def _needed(settings: Mapping[str, Setting], pair: CheckpointPair) -> tuple[str, ...]:
    """Names of the required settings.

    A full pass needs the batch size to have a number of steps, some schemes need λ, and those with
    memory need the client's earlier rounds. The learning rate is required unless a method can infer
    it from BatchNorm buffers, which takes a client whose update is proportional to it.
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
    """Why the learning rate cannot be inferred from the files; None if it may be possible."""
    methods = settings["method"].value
    if all(name != AUTO and ATTACKS[name].needs_lr for name in methods):
        return "none of the requested methods can infer it; --method fusion can"
    mixed = [name for name in ("weight_decay", "lambda") if _given(settings, name)]
    if mixed or _remembers(settings):
        return f"with {' and '.join(mixed) or 'memory'} the update is not proportional to it"
    if not pair.steps:
        return "it needs a model with BatchNorm whose counters show the client's steps"
    return None


def _rate_hints(settings: Mapping[str, Setting], pair: CheckpointPair) -> list[str]:
    """Why the learning rate in a file is not taken, for the E102 error."""
    found = next(
        (c.facts[SCHEDULED] for c in (pair.after, pair.before) if SCHEDULED in c.facts), None
    )
    if "lr" in settings or found is None:
        return []
    return [
        f"the learning rate followed a schedule ({found.value}; {found.source}), so the file does "
        "not tell that of this round"
    ]


def _given(settings: Mapping[str, Setting], name: str) -> bool:
    return name in settings and bool(settings[name].value)


def _remembers(settings: Mapping[str, Setting]) -> bool:
    """Whether earlier rounds enter the update, through the scheme or a momentum buffer."""
    momentum = "momentum" in settings and settings["momentum"].value and "history" in settings
    return SCHEMES[settings["scheme"].value].remembers or bool(momentum)
