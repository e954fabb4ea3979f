"""The strategy of docs/runs.md, under Flower itself: what it saves is attacked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_folders as lay
import torch
from torch import Tensor, nn

from rlu_cli.api.attack import attack_built
from rlu_cli.case.build import build_case
from rlu_cli.models import build_model
from rlu_cli.runs import choose, open_run
from rlu_cli.settings.layers import flag_layer
from rlu_cli.simulator.digits import draw_digits

flwr = pytest.importorskip("flwr", reason="Flower is not installed: pip install flwr")
PAGE = Path(__file__).parents[2] / "docs" / "runs.md"
NODES = (11, 12, 13)
BATCH, STEPS = 8, 2


class Grid:
    """Flower's grid, as far as a strategy asks it who is there."""

    def get_node_ids(self) -> Iterable[int]:
        return NODES


def _strategy(folder: Path) -> Any:
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r"<!-- example: flower strategy -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(compile(found[1], "docs/runs.md", "exec"), names)
    return names["SavingFedAvg"](folder=folder, min_train_nodes=3, min_available_nodes=3)


def _digits() -> tuple[Tensor, Tensor]:
    pixels, labels = draw_digits(30, seed=1)
    shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return shown, torch.from_numpy(labels)


def _train(model: nn.Module, node: int) -> list[int]:
    """Two steps on images of few classes; the labels of each class."""
    shown, labels = _digits()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    draws = torch.Generator().manual_seed(node)
    weights = torch.rand(10, generator=draws) ** 4
    batches = torch.multinomial(weights[labels], BATCH * STEPS, generator=draws).split(BATCH)
    for batch in batches:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(shown[batch] * 2 - 1), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return torch.bincount(labels[torch.cat(batches)], minlength=10).tolist()


def _reply(message: Any) -> tuple[Any, list[int]]:
    """What a client app answers: its parameters and how many examples it has."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

    model = build_model("lenet5", arguments={"act": "relu"}, classes=10)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    counts = _train(model, message.metadata.dst_node_id)
    metrics = MetricRecord({"num-examples": BATCH * STEPS, "train-loss": 2.0})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message), counts


@pytest.fixture
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer Flowers put the running task's identity, which its engine sets, into every message."""
    task = pytest.importorskip("flwr.supercore.task_identity").TaskIdentity
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(task, name, 1)


@pytest.mark.usefixtures("_task")
def test_what_the_strategy_saves_is_attacked(tmp_path: Path) -> None:
    from flwr.app import ArrayRecord, ConfigRecord

    lay.write(tmp_path / "pyproject.toml", lay.FLOWER)
    strategy = _strategy(tmp_path / "rounds")
    torch.manual_seed(0)
    model = build_model("lenet5", arguments={"act": "relu"}, classes=10)
    arrays = ArrayRecord(model.state_dict())
    messages = list(strategy.configure_train(1, arrays, ConfigRecord(), Grid()))
    replies = {m.metadata.dst_node_id: _reply(m) for m in messages}
    averaged, _ = strategy.aggregate_train(1, [reply for reply, _ in replies.values()])
    assert averaged is not None
    run = open_run(tmp_path)
    assert [one.client for one in run.exchanges] == [f"c{node}" for node in NODES]
    for node, (_, counts) in replies.items():
        chosen = choose(run, client=f"c{node}")
        flags = flag_layer({"model_args": {"act": "relu"}, "normalize": "half", "draws": 200})
        case = build_case(chosen.before, chosen.after, _auxiliary(tmp_path), flags, run=chosen)
        assert case.settings["samples"].value == BATCH * STEPS
        found = attack_built(case, lambda text: None).counts
        assert found is not None
        assert list(found.values()) == counts


def _auxiliary(folder: Path) -> str:
    shown, labels = _digits()
    pixels = (shown * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(folder / "aux.npz", images=pixels, labels=labels.numpy())
    return str(folder / "aux.npz")
