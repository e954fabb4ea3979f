"""Run folders as each system lays them out, around one pair of checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

State = Mapping[str, Tensor]
Write = Callable[[Path, State, State], None]

FLOWER = """
[project]
name = "app"
version = "1"

[tool.flwr.app.components]
serverapp = "app.server_app:app"
clientapp = "app.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 3
local-epochs = 1
learning-rate = 0.01
batch-size = 8
"""
FEDML = """
common_args:
  training_type: "simulation"
  random_seed: 0
model_args:
  model: "LeNet5"
train_args:
  federated_optimizer: "FedAvg"
  client_num_in_total: 2
  comm_round: 2
  epochs: 1
  batch_size: 8
  client_optimizer: sgd
  learning_rate: 0.01
  weight_decay: 0.001
"""
PLATO = """
clients:
    total_clients: 3
data:
    partition_size: 16
trainer:
    rounds: 2
    epochs: 1
    batch_size: 8
    optimizer: SGD
    model_name: lenet_5
algorithm:
    type: fedavg
parameters:
    optimizer:
        lr: 0.01
        momentum: 0.0
        weight_decay: 0.0
"""
HPARAMS = """
lr: 0.01
batch_size: 8
model: !!python/object/apply:os.system ["touch ran"]
"""
NVFLARE_CLIENT = {
    "format_version": 2,
    "executors": [
        {
            "tasks": ["train"],
            "executor": {
                "path": "nvflare.app_opt.pt.in_process_client_api_executor.Executor",
                "args": {
                    "task_script_path": "train.py",
                    "task_script_args": "--lr 0.01 --batch_size=8 --epochs 1",
                },
            },
        }
    ],
    "components": [],
}
NVFLARE_SERVER = {
    "format_version": 2,
    "components": [
        {
            "id": "persistor",
            "path": "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor",
            "args": {"model": {"path": "nets.simple.Net", "args": {"classes": 10}}},
        }
    ],
    "workflows": [{"id": "ctl", "path": "nvflare.app_common.workflows.fedavg.FedAvg", "args": {}}],
}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def write_round(
    folder: Path, before: State, clients: Mapping[str, State], record: object = None
) -> None:
    """A round folder in the layout of docs/runs.md."""
    folder.mkdir(parents=True)
    torch.save(dict(before), folder / "global.pt")
    for name, state in clients.items():
        torch.save(dict(state), folder / f"{name}.pt")
    if record is not None:
        write(folder / "round.json", json.dumps(record))


def flower(folder: Path, before: State, after: State) -> None:
    write(folder / "pyproject.toml", FLOWER)
    write_round(folder / "rounds" / "r001", after, {"c0": before})
    write_round(folder / "rounds" / "r002", before, {"c9": before, "c10": after}, _samples("c10"))


def _samples(client: str) -> dict[str, Any]:
    return {"samples": {client: 16}}


def nvflare(folder: Path, before: State, after: State) -> None:
    job = "simulate_job"
    server = folder / "server" / job / "app_server"
    write(server / "config" / "config_fed_server.json", json.dumps(NVFLARE_SERVER))
    torch.save({"model": dict(after), "train_conf": {}}, server / "FL_global_model.pt")
    for site, state in (("site-1", before), ("site-2", after)):
        app = folder / site / job / f"app_{site}"
        write(app / "config" / "config_fed_client.json", json.dumps(NVFLARE_CLIENT))
        write_round(folder / site / job / "r000", before, {site: state}, _samples(site))


def fedml(folder: Path, before: State, after: State) -> None:
    write(folder / "config" / "fedml_config.yaml", FEDML)
    write_round(folder / "r000", before, {"1": after}, _samples("1"))


def plato(folder: Path, before: State, after: State) -> None:
    write(folder / "fedavg_lenet5.yml", PLATO)
    for place in ("checkpoints", "models"):
        (folder / place).mkdir()
    torch.save(dict(before), folder / "checkpoints" / "checkpoint_lenet_5_1.pth")
    torch.save(dict(after), folder / "checkpoints" / "checkpoint_lenet_5_2.pth")
    torch.save(dict(after), folder / "models" / "lenet_5_3_4711.pth")


class SchedulerType:
    """Pickles as a member of transformers' enumeration does."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> Any:
        return SchedulerType, (self.text,)


class TrainingArguments:
    """Pickles as transformers' arguments do."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def hf_arguments(**values: Any) -> TrainingArguments:
    """The arguments of a run with plain SGD, but for those given."""
    plain = {
        "learning_rate": 0.01,
        "lr_scheduler_type": SchedulerType("constant"),
        "optim": SchedulerType("sgd"),
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
        "warmup_steps": 0,
        "gradient_accumulation_steps": 2,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "device": torch.device("cpu"),
    }
    return TrainingArguments(**{**plain, **values})


def hf_trainer(folder: Path, before: State, after: State) -> None:
    hf_checkpoints(folder, before, after, hf_arguments())


def hf_checkpoints(folder: Path, before: State, after: State, arguments: object) -> None:
    """Checkpoints after 3 and 5 of 10 steps; no arguments for None."""
    for step, state in ((3, before), (5, after)):
        place = folder / f"checkpoint-{step}"
        log = [{"step": n, "learning_rate": 0.01} for n in range(1, step + 1)]
        told = {"global_step": step, "max_steps": 10, "train_batch_size": 4, "log_history": log}
        write(place / "trainer_state.json", json.dumps(told))
        save_file(dict(state), place / "model.safetensors")
        if arguments is not None:
            torch.save(arguments, place / "training_args.bin")


def lightning(folder: Path, before: State, after: State) -> None:
    version = folder / "lightning_logs" / "version_1"
    write(version / "hparams.yaml", HPARAMS)
    write(folder / "lightning_logs" / "version_0" / "hparams.yaml", "lr: 5.0")
    (version / "checkpoints").mkdir()
    for step, state in ((8, before), (10, after)):
        content = {"state_dict": dict(state), "global_step": step, "epoch": 0}
        torch.save(content, version / "checkpoints" / f"epoch=0-step={step}.ckpt")


def simulated(run: Path) -> Write:
    """A copy of a run of `rlu simulate`, whatever the pair."""

    def copy(folder: Path, before: State, after: State) -> None:
        shutil.copytree(run, folder, dirs_exist_ok=True)

    return copy


def positional(path: Path, state: State) -> None:
    """As Flower's recipe saves it: arrays in the order of the model's state_dict()."""
    np.savez(path, *[tensor.numpy() for tensor in state.values()])
