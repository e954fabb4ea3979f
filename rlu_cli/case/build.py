"""Files and options → a `Case`: everything one attack needs, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rlu_cli.case.gather import gather_settings
from rlu_cli.case.hypotheses import ModelHypothesis, hypotheses, with_images
from rlu_cli.case.images import images_for
from rlu_cli.case.memory import earlier_rounds, old_momentum
from rlu_cli.case.output_layer import find_layer, recognised
from rlu_cli.case.positions import with_names
from rlu_cli.case.requirements import check_complete, require_local_training
from rlu_cli.case.round_history import RoundHistory
from rlu_cli.case.run_settings import naming_code, run_hints, run_notes
from rlu_cli.case.sent import read_sent
from rlu_cli.case.truth import load_truth
from rlu_cli.checkpoints import (
    CheckpointPair,
    CheckpointSource,
    check_pair,
    open_from,
)
from rlu_cli.errors import InputError, RluError, UsageError, printable
from rlu_cli.local_training.description import LocalTraining, describe_local_training
from rlu_cli.local_training.step_plan import StepPlan
from rlu_cli.models import runs_code
from rlu_cli.runs import Chosen
from rlu_cli.settings.layers import Layer
from rlu_cli.settings.specs import ATTACK, CALIBRATE
from rlu_cli.types import Auxiliary, Checkpoint, Head, Setting

_SHOWN = 4
NOT_BUILT = "Python objects"  # how the note on them begins
_SETTINGS_FILES = ("rlu.toml", "[tool.rlu]")  # how the source of a setting from one ends


@dataclass(frozen=True)
class Case:
    """One pair of checkpoints with everything known about it.

    pair        global and client checkpoint
    layer       name of the output layer, or several, whose mean is the logits, joined by a plus
    settings    values with their sources
    training    the client's local training
    history     the client's earlier rounds
    velocity    momentum buffer of the output layer at the start of the round; None for none
    hypotheses  candidate combinations of architecture, activation and input scaling
    auxiliary   labelled images
    truth       (N,) int64 true label counts; None if missing
    truth_path  file that `truth` was read from
    notes       notes for the user, in sentences
    rectified   whether a ReLU stands between the output layer, a 1×1 convolution, and its pooling
    """

    pair: CheckpointPair
    layer: str
    settings: Mapping[str, Setting]
    training: LocalTraining
    history: RoundHistory
    velocity: Head | None
    hypotheses: tuple[ModelHypothesis, ...]
    auxiliary: Auxiliary
    truth: Tensor | None
    truth_path: Path | None
    notes: tuple[str, ...] = ()
    rectified: bool = False

    @property
    def plan(self) -> StepPlan:
        return self.training.plan

    @property
    def remembers(self) -> bool:
        """Whether the client starts with state from earlier rounds, which no virtual one has."""
        return self.training.scheme.remembers or self.velocity is not None

    def value(self, name: str) -> Any:
        """The value of a setting; None if it is missing."""
        return self.settings[name].value if name in self.settings else None


def open_sources(
    sources: Sequence[CheckpointSource],
    flags: Layer,
    command: str = ATTACK,
    run: Chosen | None = None,
) -> tuple[CheckpointPair, dict[str, Setting]]:
    """Open the global and the client's checkpoint, and gather all settings.

    sources  one or two files or state dicts; a single one becomes both sides of the pair
    run      the run folder they are from; None for none

    The client's file is read as its weights, whatever it sent, under the global file's names.
    """
    paths = [source for source in sources if isinstance(source, Path)]
    first = gather_settings(flags, paths, None, command, run)
    limit = first["max_bytes"].value
    names = ("global state dict", "local state dict")
    opened = [
        open_from(one, name, max_bytes=limit) for one, name in zip(sources, names, strict=False)
    ]
    opened = with_names(opened, lambda name: first[name].value if name in first else None)
    pair = CheckpointPair(opened[0], opened[-1])
    settings = gather_settings(flags, paths, pair, command, run)
    if len(opened) == 1:
        return pair, settings
    pair, decided = read_sent(pair, settings)
    return pair, {**gather_settings(flags, paths, pair, command, run), **decided}


def build_case(
    global_source: CheckpointSource,
    local_source: CheckpointSource,
    aux: str | Auxiliary,
    flags: Layer,
    *,
    strict: bool = False,
    run: Chosen | None = None,
) -> Case:
    """Open, resolve and check everything one attack needs.

    aux     path of the auxiliary images, "none", or images already loaded
    strict  whether an unreadable image is an error
    run     the run folder that the pair is from, which tells settings; None for none

    Raises the errors of `check_complete` and of the functions called here.
    """
    try:
        pair, settings = open_sources((global_source, local_source), flags, run=run)
        check_complete(settings, pair, run_hints(run, settings))
        case = _opened(pair, settings, aux, strict=strict)
    except InputError as error:
        raise naming_code(error, run) from error
    value, training = case.value, case.training
    truth, path, notes = _truth(settings.get("truth"), local_source, case)
    return replace(
        case,
        history=earlier_rounds(training, case.pair, value),
        velocity=old_momentum(training, case.pair, value),
        truth=truth,
        truth_path=path,
        notes=(*run_notes(run), *case.notes, *notes),
    )


def build_study(
    global_source: CheckpointSource,
    aux: str | Auxiliary,
    flags: Layer,
    *,
    strict: bool = False,
) -> Case:
    """Build a case without a client: the global model and a description of local training.

    Both sides of the pair are the global model. Raises the same errors as `build_case`.
    """
    pair, settings = open_sources((global_source,), flags, CALIBRATE)
    require_local_training(settings)
    return _opened(pair, settings, aux, strict=strict)


def _opened(
    pair: CheckpointPair,
    settings: Mapping[str, Setting],
    aux: str | Auxiliary,
    *,
    strict: bool,
) -> Case:
    """Build the case, except for history, momentum buffer and truth."""
    pair, settings = recognised(pair, settings)
    value: Callable[[str], Any] = {n: setting.value for n, setting in settings.items()}.get
    training = describe_local_training(value)
    pair, rectified = find_layer(pair, value, aux)
    assert pair.layer is not None
    layer = pair.layer
    if pair.before is not pair.after:  # fail before reading any image
        check_pair(pair)
    _check_class_weights(training, len(pair.heads[0].weight))
    if not runs_code(value("model") or ""):  # a user's own model may be a single layer
        _refuse_bare_head(pair.before, layer)
    given = value("model"), value("model_args") or {}, value("normalize")
    found = hypotheses(pair.before, *given)
    auxiliary = images_for(aux, pair, found[0], value, strict=strict)
    return Case(
        pair=pair,
        layer=layer,
        rectified=rectified,
        settings=settings,
        training=training,
        history=RoundHistory(),
        velocity=None,
        hypotheses=with_images(found, auxiliary.images),
        auxiliary=auxiliary,
        truth=None,
        truth_path=None,
        notes=tuple(_remarks(pair)),
    )


def _remarks(pair: CheckpointPair) -> Iterator[str]:
    """Sentences on how each file was read, where it is no plain state dict."""
    sides = {"global": pair.before, "client's": pair.after}
    if pair.before is pair.after:
        del sides["client's"]
    for side, one in sides.items():
        if one.positional:
            yield (
                f"the {side} file has no names: its tensors were taken in the order of the "
                "model's state_dict()"
            )
        if one.objects:
            shown = ", ".join(printable(name, 80) for name in one.objects[:_SHOWN])
            more = len(one.objects) - _SHOWN
            also = "" if more <= 0 else f" and {more} more"
            yield f"{NOT_BUILT} in the {side} file were not built: {shown}{also}"


def _check_class_weights(training: LocalTraining, classes: int) -> None:
    """Raise UsageError E101 unless there is one weight for each class."""
    weights = training.class_weights
    if weights is not None and len(weights) != classes:
        raise UsageError(
            "E101",
            f"{len(weights)} class weights for an output layer of {classes}",
            hint="give one weight for each class with --class-weights A,B,…, in the class order",
        )


def _truth(
    given: Setting | None, local: CheckpointSource, case: Case
) -> tuple[Tensor | None, Path | None, tuple[str, ...]]:
    """The true counts, their file and notes.

    A truth file found beside the client's checkpoint that does not fit gives a note, not an error.
    """
    beside = _truth_beside(local) if isinstance(local, Path) else None
    named = None if given is None else str(given.value)
    if beside is not None and given is not None and _is_of_another_folder(given, beside):
        named = None  # a project's truth is not that of every client it looks at
    path = Path(named) if named else beside
    if path is None:
        return None, None, ()
    try:
        plan = case.plan
        passes = plan.passes if plan.whole else 1
        return load_truth(path, case.auxiliary.class_names, plan.total, passes), path, ()
    except RluError as unfit:
        if named:
            raise
        return None, None, (f"not scored: {unfit.message}",)


def _is_of_another_folder(given: Setting, beside: Path) -> bool:
    """Whether a settings file that does not lie beside the client named the truth."""
    here = given.source.startswith(str(beside.parent.resolve()))
    return given.source.endswith(_SETTINGS_FILES) and not here


def _truth_beside(local: Path) -> Path | None:
    """The truth file that `rlu simulate` writes beside the client; links elsewhere do not count."""
    truth = local.with_suffix(".truth.json")
    in_a_run = (local.parent / "round.json").is_file()
    here = truth.resolve().parent == local.parent.resolve()
    return truth if in_a_run and truth.is_file() and here else None


def _refuse_bare_head(checkpoint: Checkpoint, layer: str) -> None:
    """Raise InputError E215 for a checkpoint that contains only the output layer."""
    if any(not name.startswith(f"{layer}.") for name in checkpoint.state) or not layer:
        return
    raise InputError(
        "E215",
        f"{printable(checkpoint.path)} contains only the output layer {printable(layer)}",
        why="the model cannot be evaluated on images without its other layers",
        hint="attack a round with complete files; `rlu simulate --keep all` keeps all of them",
    )
