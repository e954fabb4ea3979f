"""What other systems call a setting, an optimiser or a scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlu_cli.errors import printable
from rlu_cli.types import Setting

Names = Mapping[str, tuple[str, ...]]  # setting: what it may be called, the likelier first

COMMON: Names = {
    "lr": ("lr", "learning_rate", "client_lr", "local_lr"),
    "batch_size": ("batch_size", "train_batch_size", "local_batch_size"),
    "epochs": ("local_epochs", "aggregation_epochs", "client_epochs"),
    "momentum": ("momentum",),
    "nesterov": ("nesterov",),
    "weight_decay": ("weight_decay", "wd"),
    "label_smoothing": ("label_smoothing",),
    "optimizer": ("optimizer", "optim", "client_optimizer"),
    "lambda": ("proximal_mu", "fedprox_mu", "fedproxloss_mu"),
}
_OPTIMISERS = {"sgd": "sgd", "adam": "adam", "adamw": "adamw"}

# What systems call their schemes, without case, dashes and underscores. Those that differ on the
# server alone have the clients of FedAvg.
_SCHEMES = {
    **dict.fromkeys(
        ("fedavg", "fedavgseq", "fedopt", "fedadam", "fedyogi", "fedadagrad"), "fedavg"
    ),
    **dict.fromkeys(("fedavgm", "basic", "fedavglight"), "fedavg"),
    "fedprox": "fedprox",
    "scaffold": "scaffold",
    "feddyn": "feddyn",
    "feddc": "feddc",
}


def settings_in(values: Mapping[str, Any], place: str, names: Names = COMMON) -> dict[str, Setting]:
    """The settings that a table of another system gives, as it writes them.

    place  where the table stands: a file, then the way to it
    """
    plain = {str(key).replace("-", "_").lower(): key for key in values}
    found: dict[str, Setting] = {}
    for setting, known in names.items():
        for name in known:
            value = values.get(plain[name]) if name in plain else None
            if setting not in found and isinstance(value, (int, float, str)):
                found[setting] = Setting(value, printable(f"{place} {plain[name]}"))
    return _translated(found)


def _translated(found: dict[str, Setting]) -> dict[str, Setting]:
    """Optimisers by our names; a proximal term that is there makes the scheme FedProx."""
    given = found.pop("optimizer", None)
    if given is not None:
        name = str(given.value).lower().replace("adamw_torch_fused", "adamw").partition("_")[0]
        found["optimizer"] = Setting(_OPTIMISERS.get(name, given.value), given.source)
    pull = found.pop("lambda", None)
    if pull is not None and _positive(pull.value):
        found |= {"lambda": pull, "scheme": Setting("fedprox", pull.source)}
    return found


def _positive(value: Any) -> bool:
    try:
        return float(value) > 0
    except ValueError:
        return False


def scheme_of(name: Any, source: str) -> tuple[dict[str, Setting], tuple[str, ...]]:
    """The scheme that a system names, and a note if it is none that is known here."""
    if not isinstance(name, str) or not name:
        return {}, ()
    known = _SCHEMES.get(name.lower().replace("-", "").replace("_", "").replace(" ", ""))
    if known is None:
        shown = printable(name, 40)
        return {}, (f"the run's scheme {shown} is none that is known here: see rlu schemes",)
    return {"scheme": Setting(known, printable(source))}, ()


def leaves(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of a table and of those inside it, from the outside in."""
    tables = [table]
    while tables:  # not by recursion: a dotted name in TOML may nest them without end
        inner = []
        for one in tables:
            for name, value in one.items():
                if isinstance(value, Mapping):
                    inner.append(value)
                else:
                    yield name, value
        tables = inner
