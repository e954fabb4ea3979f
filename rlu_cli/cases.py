"""What the user typed and the files told → a `Case`: everything one attack needs, checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from rlu_cli.attacks import ATTACKS, AUTO
from rlu_cli.auxiliary import NOISE, load_auxiliary, noise_auxiliary
from rlu_cli.checkpoints import (
    check_pair,
    find_output_layer,
    momentum_head,
    open_checkpoint,
    read_head,
)
from rlu_cli.counters import counted_steps, inferred_epochs, step_hints
from rlu_cli.errors import InputError, RluError, UsageError, printable
from rlu_cli.history import History, check_history, last_file, read_history
from rlu_cli.matching import Reading, readings
from rlu_cli.models import input_shape, runs_code
from rlu_cli.schemes import SCHEMES, SERVER_VALUE, TAKES_LAMBDA
from rlu_cli.settings import (
    INFER,
    KINDS,
    Layer,
    environment_layer,
    file_layers,
    flag_layer,
    require,
    resolve,
)
from rlu_cli.steps import Plan
from rlu_cli.training import NONLINEAR, Training, describe_training
from rlu_cli.truth import load_truth
from rlu_cli.types import Auxiliary, Checkpoint, Head, Setting


@dataclass(frozen=True)
class Case:
    """One pair of checkpoints with all that is known about it.

    pair       global and client checkpoint
    layer      name of the output layer
    settings   values with their sources
    training   scheme, optimiser, steps and batch sizes
    history    the client's earlier rounds
    velocity   momentum buffer of the output layer at the start of the round, None for none
    readings   architectures, activations and scalings the files may have been made with
    auxiliary  labelled images
    truth      (N,) int64 label counts, None when not told
    notes      what the user should know, in words
    """

    pair: tuple[Checkpoint, Checkpoint]
    layer: str
    settings: Mapping[str, Setting]
    training: Training
    history: History
    velocity: Head | None
    readings: tuple[Reading, ...]
    auxiliary: Auxiliary
    truth: Tensor | None
    truth_path: Path | None
    notes: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        return self.training.plan

    def value(self, name: str) -> Any:
        """A setting's value, None when nobody gave it."""
        return self.settings[name].value if name in self.settings else None


def open_pair(paths: Sequence[Path], max_bytes: int) -> tuple[Checkpoint, Checkpoint]:
    """The global and the client's checkpoint."""
    before, after = (open_checkpoint(path, max_bytes=max_bytes) for path in paths)
    return before, after


def gather_settings(
    flags: Mapping[str, Any], paths: Sequence[Path], pair: Sequence[Checkpoint] | None
) -> dict[str, Setting]:
    """Every setting anyone gave, in the order of rank, before anything is missing; then the epochs,
    where nobody said them and BatchNorm counters do.

    paths  the inspected files, client's first for what lies beside
    pair   the opened checkpoints, for what they tell themselves; None when not yet opened
    """
    told = [Layer(dict(c.facts)) for c in reversed(pair or ())]
    known = [Layer({n: s for n, s in layer.values.items() if n in KINDS}) for layer in told]
    files = file_layers([*reversed(paths)], Path.cwd())
    settings = resolve([flag_layer(flags), environment_layer(), *files, *known])
    epochs = inferred_epochs(settings, pair or ())
    return settings if epochs is None else {**settings, "epochs": epochs}


def build_case(
    global_path: Path,
    local_path: Path,
    aux: str | Auxiliary,
    flags: Mapping[str, Any],
    *,
    strict: bool = False,
) -> Case:
    """Open, resolve and check everything one attack needs.

    aux  path of the auxiliary images, "none", or images that were read before

    Raises the errors of `check_told` and of the steps it calls.
    """
    paths = (global_path, local_path)
    limit = gather_settings(flags, paths, None)["max_bytes"].value
    pair = open_pair(paths, limit)
    settings = gather_settings(flags, paths, pair)
    check_told(settings, pair)
    case = _opened(pair, settings, aux, strict=strict)
    value = case.value
    truth, path, notes = _truth(value("truth"), local_path, case.auxiliary, case.plan)
    return replace(
        case,
        history=_history(case.training, pair, case.layer, value),
        velocity=_velocity(case.training, pair, case.layer, value),
        truth=truth,
        truth_path=path,
        notes=notes,
    )


def build_study(
    global_path: Path, aux: str, flags: Mapping[str, Any], *, strict: bool = False
) -> Case:
    """The case of a client that is not there: the global model alone, and how clients train on it.

    Both files of the pair are the global one. Raises as `build_case` does.
    """
    limit = gather_settings(flags, (global_path,), None)["max_bytes"].value
    model = open_checkpoint(global_path, max_bytes=limit)
    settings = gather_settings(flags, (global_path,), (model,))
    require(settings, _needed_to_train(settings), ())
    return _opened((model, model), settings, aux, strict=strict)


def _opened(
    pair: tuple[Checkpoint, Checkpoint],
    settings: Mapping[str, Setting],
    aux: str | Auxiliary,
    *,
    strict: bool,
) -> Case:
    """The case without what only the client's own file and its neighbours tell."""
    value: Callable[[str], Any] = {n: setting.value for n, setting in settings.items()}.get
    training = describe_training(value)
    layer = find_output_layer(pair[0].state, layer=value("layer"), classes=_classes_told(value))
    if pair[0] is not pair[1]:  # before any image is read
        check_pair(*pair, layer)
    if not runs_code(value("model") or ""):  # a model of the user's own may be one layer
        _refuse_bare_head(pair[0], layer)
    found = readings(pair[0], value("model"), value("model_args") or {}, value("normalize"))
    auxiliary = _auxiliary(aux, pair[0], layer, found[0], value, strict=strict)
    return Case(
        pair=pair,
        layer=layer,
        settings=settings,
        training=training,
        history=History(),
        velocity=None,
        readings=tuple(found),
        auxiliary=auxiliary,
        truth=None,
        truth_path=None,
    )


def _truth(
    named: str | None, local: Path, auxiliary: Auxiliary, plan: Plan
) -> tuple[Tensor | None, Path | None, tuple[str, ...]]:
    """The true counts and where they stand; what was found unasked and does not fit is a note."""
    path = Path(named) if named else _truth_beside(local)
    if path is None:
        return None, None, ()
    try:
        return load_truth(path, auxiliary.class_names, plan.total), path, ()
    except RluError as unfit:
        if named:
            raise
        return None, None, (f"not scored: {unfit.message}",)


def _refuse_bare_head(checkpoint: Checkpoint, layer: str) -> None:
    """Past rounds cut down to their output layer are history; they cannot be run (E215)."""
    if any(not name.startswith(f"{layer}.") for name in checkpoint.state) or not layer:
        return
    raise InputError(
        "E215",
        f"{printable(checkpoint.path)} holds the output layer {printable(layer)} and nothing else",
        why="the images cannot go through a model without its other layers",
        hint="attack a round whose files are whole; `rlu simulate --keep all` keeps every round so",
    )


def _history(
    training: Training, pair: Sequence[Checkpoint], layer: str, value: Callable[[str], Any]
) -> History:
    """The client's earlier rounds, where the scheme remembers them."""
    if value("history") is not None:
        check_history(Path(value("history")))
    if not training.scheme.remembers:
        return History()
    return read_history(
        Path(value("history")),
        pair[1].path,
        pair[0],
        layer,
        rate=training.recursion.rate,
        needs_server=value("scheme") == SERVER_VALUE,
        max_bytes=value("max_bytes"),
    )


def _velocity(
    training: Training, pair: Sequence[Checkpoint], layer: str, value: Callable[[str], Any]
) -> Head | None:
    """The momentum buffer the client began with: from the file it started from, or its last one."""
    if not training.recursion.momentum:
        return None
    found = momentum_head(pair[0], layer)
    if found is not None or value("history") is None:
        return found
    earlier = last_file(Path(value("history")), pair[1].path)
    if earlier is None:
        return None
    return momentum_head(open_checkpoint(earlier, max_bytes=value("max_bytes")), layer)


def _classes_told(value: Callable[[str], Any]) -> int | None:
    names = value("classes")
    return len(names) if names else None


def _truth_beside(local: Path) -> Path | None:
    """What `rlu simulate` writes beside the client it made; not a link to somewhere else."""
    truth = local.with_suffix(".truth.json")
    in_a_run = (local.parent / "round.json").is_file()
    here = truth.resolve().parent == local.parent.resolve()
    return truth if in_a_run and truth.is_file() and here else None


def _auxiliary(
    aux: str | Auxiliary,
    checkpoint: Checkpoint,
    layer: str,
    reading: Reading,
    value: Callable[[str], Any],
    *,
    strict: bool,
) -> Auxiliary:
    classes = len(read_head(checkpoint.state, layer).weight)
    if isinstance(aux, Auxiliary):
        return _fitting(aux, classes)
    channels, told = _input_shape(checkpoint, reading, classes)
    size = value("image_size") or told
    if aux != NOISE:
        return load_auxiliary(
            Path(aux),
            classes=classes,
            class_names=value("classes"),
            channels=channels,
            size=size,
            split=value("aux_split"),
            per_class=value("aux_per_class"),
            seed=value("seed"),
            strict=strict,
        )
    if size is None:
        raise UsageError(
            "E102",
            "nobody said how large the noise images should be",
            hint="the model takes any size: give the client's with --image-size N",
        )
    names = value("classes") or [str(n) for n in range(classes)]
    if len(names) != classes:
        raise InputError(
            "E221",
            f"{len(names)} class names for an output layer of {classes}",
            hint="correct `classes`, or name another output layer with --layer",
        )
    return noise_auxiliary(names, channels=channels, size=size, seed=value("seed"))


def _fitting(auxiliary: Auxiliary, classes: int) -> Auxiliary:
    if auxiliary.classes == classes:
        return auxiliary
    raise InputError(
        "E221",
        f"images of {auxiliary.classes} classes for an output layer of {classes}",
        hint="the files are of another model",
    )


def _input_shape(checkpoint: Checkpoint, reading: Reading, classes: int) -> tuple[int, int | None]:
    model = reading.build(checkpoint, classes) if runs_code(reading.model) else reading.model
    return input_shape(model, checkpoint.state)


def check_told(settings: Mapping[str, Setting], pair: Sequence[Checkpoint]) -> None:
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
            if nonlinear and counted_steps(pair)
            else "give it with --lr ETA",
        )


def _needed_to_train(settings: Mapping[str, Setting]) -> tuple[str, ...]:
    names = ["lr", "epochs"]
    names += ["batch_size"] if "samples" in settings else []
    return (*names, "lambda") if settings["scheme"].value in TAKES_LAMBDA else tuple(names)


def _needed(settings: Mapping[str, Setting], pair: Sequence[Checkpoint]) -> tuple[str, ...]:
    """What cannot be left out: a full pass over the samples has steps only with a batch size, a
    scheme may have a λ, and one with memory needs the client's earlier rounds. The learning rate
    can be found by a method that reads BatchNorm buffers, of a client whose steps it only scales.
    """
    names = ["lr", "epochs"] if _hides_rate(settings, pair) else ["epochs"]
    if "samples" in settings:
        names.append("batch_size")
    scheme = settings["scheme"].value
    if scheme in TAKES_LAMBDA:
        names.append("lambda")
    if SCHEMES[scheme](0.0).remembers or ("joint" in settings and settings["joint"].value):
        names.append("history")
    return tuple(names)


def _hides_rate(settings: Mapping[str, Setting], pair: Sequence[Checkpoint]) -> str | None:
    """Why the learning rate cannot follow from the files; None where it may."""
    methods = settings["method"].value
    if not any(name == AUTO or ATTACKS[name].any_rate for name in methods):
        return "no method asked for finds it: --method fusion does"
    mixed = [name for name in ("weight_decay", "lambda") if _given(settings, name)]
    if mixed or _remembers(settings):
        return f"with {' and '.join(mixed) or 'memory'} it does more than scale the update"
    if not counted_steps(pair):
        return "it takes a model with BatchNorm, and counters that show the client's steps"
    return None


def _given(settings: Mapping[str, Setting], name: str) -> bool:
    return name in settings and bool(settings[name].value)


def _remembers(settings: Mapping[str, Setting]) -> bool:
    """Whether something from earlier rounds, of the scheme or of momentum, enters the update."""
    momentum = "momentum" in settings and settings["momentum"].value and "history" in settings
    return SCHEMES[settings["scheme"].value](0.0).remembers or bool(momentum)
