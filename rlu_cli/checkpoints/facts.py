"""Settings in a trainer's checkpoint, from its optimiser state and hyper-parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rlu_cli.checkpoints.pickle_values import entries
from rlu_cli.errors import printable
from rlu_cli.types import Setting

OPTIMISERS = ("optimizer", "optimizer_state_dict", "optimizer_state", "optimizer_states")
_SCHEDULERS = (
    *("scheduler", "lr_scheduler", "lr_schedulers", "scheduler_state_dict"),
    *("lr_scheduler_state_dict", "scheduler_state", "schedulers"),
)
_MOMENTS = "exp_avg"
SCHEDULED = "scheduled"  # the fact that the rate changed over time
_HYPER_PARAMETERS = ("hyper_parameters", "args", "config", "hparams")


def _positive(value: Any) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and 0 < value <= sys.float_info.max


def _count(value: Any) -> bool:
    return _positive(value) and isinstance(value, int)


def _on(value: Any) -> bool:
    return value is True


# setting: (its names, the likelier first; check of its value)
_Table = Mapping[str, tuple[tuple[str, ...], Callable[[Any], bool]]]
_OF_OPTIMISER: _Table = {
    "lr": (("lr",), _positive),
    "momentum": (("momentum",), _positive),
    "weight_decay": (("weight_decay",), _positive),
    "nesterov": (("nesterov",), _on),
}
_OF_TRAINER: _Table = {
    "lr": (("lr", "learning_rate"), _positive),
    "batch_size": (("batch_size", "train_batch_size"), _count),
    "epochs": (("local_epochs", "local_steps"), _count),  # "epochs" mostly counts global ones
    "num_classes": (("num_classes",), _count),
}


def collect_facts(outer: Sequence[Mapping[str, Any]], file_name: str) -> dict[str, Setting]:
    """Settings found in the dicts around the state dict, each with its location.

    The optimiser state takes precedence over hyper-parameters. Zero and "off" are skipped: they are
    the defaults. Running moments or `betas` are those of Adam. Under a schedule, the rate in the
    file is the last one and says nothing of the round's: `lr` is then left out, and the fact
    `SCHEDULED` says so.
    """
    facts = {**_adaptive(outer, file_name), **_scheduled(outer, file_name)}
    hidden = {"lr"} if SCHEDULED in facts else set()
    for place, values, table in _places(outer):
        for setting, (names, accepts) in table.items():
            for name in names:
                if setting not in {*facts, *hidden} and accepts(values.get(name)):
                    where = f"{file_name}: {place}{name}"
                    facts[setting] = Setting(values[name], printable(where))
    return facts


def _places(
    outer: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, Mapping[str, Any], _Table]]:
    for items in outer:
        for key in OPTIMISERS:
            yield from _groups(key, items.get(key))
    for items in outer:
        for key in _HYPER_PARAMETERS:
            held = entries(items.get(key))  # a dict, a Namespace or another object with attributes
            if held is not None:
                yield f"{key}.", held, _OF_TRAINER
        yield "", items, _OF_TRAINER


def _groups(key: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any], _Table]]:
    """The first parameter group, without the values that differ in other groups."""
    if isinstance(value, list):
        key, value = f"{key}[0]", value[0] if value else None
    groups = value.get("param_groups") if isinstance(value, dict) else None
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return
    first, *others = [_settings(group) for group in groups] or [{}]
    agreed = {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}
    yield f"{key}.param_groups[0].", agreed, _OF_OPTIMISER


def _settings(group: dict[Any, Any]) -> dict[str, Any]:
    return {name: group[name] for name in _OF_OPTIMISER if isinstance(group.get(name), int | float)}


def _adaptive(outer: Sequence[Mapping[str, Any]], file_name: str) -> dict[str, Setting]:
    """The optimiser, where its state is that of Adam or AdamW."""
    for key, optimiser in _optimisers(outer):
        group = _first_group(optimiser)
        moments = any(
            isinstance(one, dict) and _MOMENTS in one for one in _values(optimiser.get("state"))
        )
        if "betas" in group or moments:
            name = "adamw" if group.get("decoupled_weight_decay") is True else "adam"
            where = f"{key}.param_groups[0].betas" if "betas" in group else f"{key}.state"
            return {"optimizer": Setting(name, printable(f"{file_name}: {where}"))}
    return {}


def _scheduled(outer: Sequence[Mapping[str, Any]], file_name: str) -> dict[str, Setting]:
    """That the learning rate followed a schedule, and what shows it."""
    for key, optimiser in _optimisers(outer):
        group = _first_group(optimiser)
        first, last = group.get("initial_lr"), group.get("lr")
        if _positive(first) and _positive(last) and first != last:
            where = f"{file_name}: {key}.param_groups[0].initial_lr"
            return {SCHEDULED: Setting(f"from {first:g} to {last:g}", printable(where))}
    for items in outer:
        for key in _SCHEDULERS:
            state = items.get(key)
            if isinstance(state, list | dict) and state:
                return {SCHEDULED: Setting("a scheduler", printable(f"{file_name}: {key}"))}
    return {}


def _optimisers(outer: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Every optimiser's state, with the place it stands in."""
    for items in outer:
        for key in OPTIMISERS:
            value = items.get(key)
            if isinstance(value, list):
                key, value = f"{key}[0]", value[0] if value else None
            if isinstance(value, dict):
                yield key, value


def _first_group(optimiser: dict[Any, Any]) -> dict[Any, Any]:
    groups = optimiser.get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups else None
    return first if isinstance(first, dict) else {}


def _values(entries: Any) -> list[Any]:
    return list(dict.values(entries)) if isinstance(entries, dict) else []
