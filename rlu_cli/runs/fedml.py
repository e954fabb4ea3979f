"""FedML: `train_args` in its YAML, and saved rounds."""

from __future__ import annotations

from typing import Any

from rlu_cli.errors import printable
from rlu_cli.runs.folder import RunFolder
from rlu_cli.runs.names import COMMON, Names, scheme_of, settings_in
from rlu_cli.runs.rounds import rounds_in
from rlu_cli.runs.run import Run, System
from rlu_cli.types import Setting

_NAMES: Names = {
    **COMMON,
    "epochs": ("epochs",),  # of a client in a round; rounds are comm_round
    "lambda": ("fedprox_mu", "feddyn_alpha", "lambda"),
    "optimizer": ("client_optimizer",),
}
_UNUSED = (
    "the run's weight decay is left out: FedML's own trainer gives it to Adam alone; "
    "--weight-decay for another trainer"
)


def matches(folder: RunFolder) -> bool:
    return _config(folder) is not None


def read(folder: RunFolder, name: str) -> Run:
    """Settings of train_args; the pairs are saved rounds (docs/runs.md)."""
    config = _config(folder)
    assert config is not None
    file, content = config
    train, place = content["train_args"], f"{file}: train_args."
    values = settings_in(train, place, _NAMES)
    scheme, notes = scheme_of(train.get("federated_optimizer"), f"{place}federated_optimizer")
    optimizer = values.get("optimizer")
    if optimizer is not None and optimizer.value == "sgd" and values.pop("weight_decay", None):
        notes = (*notes, _UNUSED)
    values |= scheme or {}
    if not scheme or scheme["scheme"].value == "fedavg":
        values.pop("lambda", None)
    return Run(
        folder.path,
        name,
        rounds_in(folder),
        values,
        model=_model(content.get("model_args"), file),
        notes=notes,
        no_global="FedML keeps no model of a round by itself",
    )


def _config(folder: RunFolder) -> tuple[str, dict[str, Any]] | None:
    """The outermost YAML with the settings of a FedML run."""
    for file in folder.ending(".yaml", ".yml"):
        if "federated_optimizer" in folder.text(file):
            content = folder.yaml(file)
            train = content.get("train_args")
            if isinstance(train, dict) and "federated_optimizer" in train:
                return file, content
    return None


def _model(table: Any, file: str) -> Setting | None:
    name = table.get("model") if isinstance(table, dict) else None
    source = printable(f"{file}: model_args.model")
    return Setting(name, source) if isinstance(name, str) else None


SYSTEM = System(matches, read)
