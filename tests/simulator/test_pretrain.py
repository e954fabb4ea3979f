"""Training in one place: it stops in time, is recorded, and is not done twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import Killed, contents, read, simulate
from torch import nn

from rlu_cli.errors import InputError
from rlu_cli.models.input_scaling import PRESETS
from rlu_cli.simulator import pretrain as module
from rlu_cli.simulator.client import seeded
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding
from rlu_cli.simulator.pretrain import Pretraining, pretrain

PLAN = Plan(clients=2, lr=0.01, batch_size=8, pretrain=0.5, seed=3)


def _train(holding: Holding, target: float, said: list[str]) -> tuple[Pretraining, nn.Module]:
    with seeded((0,), torch.device("cpu")):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    images, labels = holding.client_images, holding.client_labels
    done = pretrain(
        model,
        images,
        labels,
        target=target,
        lr=0.01,
        normalise=PRESETS["half"],
        seed=(1,),
        progress=said.append,
    )
    return done, model


def test_it_stops_after_the_first_epoch_that_reaches_the_target(holding: Holding) -> None:
    said: list[str] = []
    done, model = _train(holding, 0.6, said)
    accuracies = [float(text.rsplit(" ", 1)[1]) for text in said]
    assert len(accuracies) == done.epochs > 1
    assert max(accuracies[:-1]) < 0.6 <= done.reached
    pixels = torch.tensor(holding.client_images).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    right = model.eval()(pixels).argmax(1).numpy() == holding.client_labels
    assert done.reached == pytest.approx(right.mean())


def test_the_seed_fixes_it(holding: Holding) -> None:
    first, again = (_train(holding, 0.5, [])[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_target_out_of_reach_is_an_error(
    holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EPOCHS", 2)
    with pytest.raises(InputError, match="after 2 epochs of pretraining") as caught:
        _train(holding, 1.0, [])
    assert caught.value.code == "E241"


def test_the_federation_starts_from_it_and_says_so(tmp_path: Path, holding: Holding) -> None:
    simulate(tmp_path, holding, PLAN)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["pretrain"]["target"] == 0.5
    assert record["pretrain"]["reached"] >= 0.5
    assert record["settings"]["pretrain"] == 0.5
    start = read(tmp_path / "r000" / "global.pt")
    batches = -(-len(holding.client_labels) // module.BATCH) * record["pretrain"]["epochs"]
    assert int(start["1.num_batches_tracked"]) == batches


def test_it_is_not_done_again_and_not_forgotten(
    tmp_path: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(tmp_path / "whole", holding, PLAN)

    def kill(done: int) -> None:
        if done:
            raise Killed

    with pytest.raises(Killed):
        simulate(tmp_path / "run", holding, PLAN, tick=kill)
    monkeypatch.setattr(module, "EPOCHS", 0)
    simulate(tmp_path / "run", holding, PLAN)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    with pytest.raises(InputError):
        simulate(tmp_path / "other", holding, replace(PLAN, seed=4))
