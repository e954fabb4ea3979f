"""Hugging Face's Trainer: `checkpoint-N` folders, trainer_state.json and training_args.bin.

The arguments are a pickled object, whose attributes are read and which is never built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlu_cli.checkpoints import open_attributes
from rlu_cli.errors import InputError
from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import Names, settings_in
from rlu_cli.runs.run import Exchange, Run, System
from rlu_cli.runs.steps import by_steps
from rlu_cli.types import Setting

_STATE, _ARGUMENTS = "trainer_state.json", "training_args.bin"
_FOLDER = re.compile(r"(?:^|/)checkpoint-(\d{1,9})/trainer_state\.json$")
_MAX_ARGUMENTS = 2**22
_NAMES: Names = {
    "weight_decay": ("weight_decay",),
    "label_smoothing": ("label_smoothing_factor",),
    "clip": ("max_grad_norm",),
    "optimizer": ("optim",),
}
_NO_ARGUMENTS = (
    "the run has no training_args.bin: optimiser, clipping and schedule are not known, and the "
    "Trainer's own are adamw, a norm of 1 and linear"
)


def matches(folder: RunFolder) -> bool:
    return any(_FOLDER.search(file) for file in folder.files)


def read(folder: RunFolder, name: str) -> Run:
    """Checkpoints that follow one another, and the rate, batch size and optimiser between them."""
    states = {int(m[1]): file for file in folder.files if (m := _FOLDER.search(file))}
    steps = {step: folder.file(file).parent for step, file in states.items()}
    found, arguments = _arguments(folder)
    exchanges = tuple(
        replace(one, values={**one.values, **_rates(folder, states, one, arguments, found)})
        for one in by_steps(steps)
    )
    values = settings_in(arguments, f"{found}:", _NAMES)
    return Run(
        folder.path,
        name,
        exchanges,
        {**values, **_betas(values, arguments, found), **_batch(folder, states, arguments)},
        full_passes=False,
        notes=() if found else (_NO_ARGUMENTS,),
        no_global="it is the first checkpoint of the run, which keeps no earlier one",
    )


def _arguments(folder: RunFolder) -> tuple[str, dict[str, Any]]:
    """The outermost training_args.bin, and what is plain in it; "" where there is none to read."""
    for file in folder.named(_ARGUMENTS):
        try:
            held = open_attributes(folder.file(file), max_bytes=_MAX_ARGUMENTS)
        except InputError:
            continue
        return file, held
    return "", {}


def _batch(
    folder: RunFolder, states: Mapping[int, str], arguments: Mapping[str, Any]
) -> dict[str, Setting]:
    """Images in a step: those of a device, times what is accumulated."""
    file = states[max(states)]
    size = folder.json(file).get("train_batch_size")
    if not isinstance(size, int):
        return {}
    times = arguments.get("gradient_accumulation_steps")
    times = times if isinstance(times, int) and times > 1 else 1
    also = f" × gradient_accumulation_steps {times}" if times > 1 else ""
    return {"batch_size": Setting(size * times, f"{file}: train_batch_size{also}")}


def _betas(
    values: Mapping[str, Setting], arguments: Mapping[str, Any], file: str
) -> dict[str, Setting]:
    given = [arguments.get(f"adam_beta{number}") for number in (1, 2)]
    adaptive = "optimizer" in values and str(values["optimizer"].value).startswith("adam")
    if not adaptive or not all(isinstance(one, float) for one in given):
        return {}
    return {"betas": Setting(tuple(given), f"{file}: adam_beta1, adam_beta2")}


def _rates(
    folder: RunFolder,
    states: Mapping[int, str],
    one: Exchange,
    arguments: Mapping[str, Any],
    file: str,
) -> dict[str, Setting]:
    """The rate of the first step between two checkpoints, and its schedule up to the last.

    Nothing where the schedule is none that can be said of these steps alone.
    """
    rate, kind = arguments.get("learning_rate"), arguments.get("lr_scheduler_type")
    start = one.round - int(one.values["epochs"].value)
    if not isinstance(rate, float) or not isinstance(kind, str):
        return _logged(folder, states[one.round], start, one.round)
    total = folder.json(states[one.round]).get("max_steps")
    source = f"{file}: learning_rate, lr_scheduler_type {kind}"
    warm = _warmup(arguments, total)
    if kind == "constant":
        return {"lr": Setting(rate, source)}
    if not isinstance(total, int) or total < one.round or start < warm:
        return {}
    if kind == "linear":
        first, last = (rate * (total - k) / (total - warm) for k in (start, one.round - 1))
        return _scheduled(first, f"linear:{last!r}", source)
    if kind == "cosine" and start == warm:
        return _scheduled(rate, f"cosine:{total - warm}", source)
    return {}


def _scheduled(rate: float, schedule: str, source: str) -> dict[str, Setting]:
    return {"lr": Setting(rate, source), "lr_schedule": Setting(schedule, source)}


def _warmup(arguments: Mapping[str, Any], total: Any) -> int:
    """Steps in which the rate rises."""
    steps, ratio = arguments.get("warmup_steps"), arguments.get("warmup_ratio")
    if isinstance(steps, int) and steps > 0:
        return steps
    share = next((x for x in (steps, ratio) if isinstance(x, float) and 0 < x < 1), 0.0)
    return math.ceil(share * total) if isinstance(total, int) else 0


def _logged(folder: RunFolder, file: str, start: int, end: int) -> dict[str, Setting]:
    """The rate in the log of these steps, if it is one."""
    log = folder.json(file).get("log_history")
    rates = {
        entry["learning_rate"]
        for entry in (log if isinstance(log, list) else [])
        if isinstance(entry, dict)
        and isinstance(entry.get("learning_rate"), float)
        and isinstance(entry.get("step"), int)
        and start < entry["step"] <= end
    }
    source = f"{file}: log_history learning_rate"
    return {"lr": Setting(rates.pop(), source)} if len(rates) == 1 else {}


SYSTEM = System(matches, read)
