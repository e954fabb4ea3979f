"""Several rounds: who takes part, which round is the last, what is kept, and that a run killed at
any write ends as if it had not been.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import Killed, contents, read, simulate, with_batch_norm

from rlu_cli.case.round_history import read_history
from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.errors import InputError, UsageError
from rlu_cli.simulator.defences import Defence
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.pool import Holding

PLAN = Plan(clients=3, alpha=1.0, lr=0.05, batch_size=8, epochs=2, rounds=3, seed=4)
ADAM = Local(optimizer="adam", lr_schedule="linear:0.001")
SCAFFOLD = replace(PLAN, local=Local("scaffold", momentum=0.5), sample_clients=2)
KILLABLE = {
    "scaffold": replace(SCAFFOLD, pretrain=0.2),
    "feddyn": replace(PLAN, local=Local("feddyn", pull=0.5, samples=11), keep="heads"),
    "feddc": replace(PLAN, local=Local("feddc", pull=0.5), defence=Defence(noise=0.01, topk=0.5)),
    "adam": replace(PLAN, epochs=9, local=ADAM, train_to=0.25, rounds=9),
}


def _killed_at(write: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process die instead of finishing the file of that number."""
    left = iter(range(write))
    rename = os.replace

    def replace_or_die(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace_or_die)


@pytest.mark.parametrize("name", KILLABLE)
def test_a_run_killed_at_any_write_ends_as_if_it_had_not_been(
    tmp_path: Path, holding: Holding, name: str
) -> None:
    plan, whole, run = KILLABLE[name], tmp_path / "whole", tmp_path / "run"
    simulate(whole, holding, plan)
    for writes in count():
        with pytest.MonkeyPatch.context() as patch:
            _killed_at(writes, patch)
            try:
                simulate(run, holding, plan)
                break
            except Killed:
                continue
    assert contents(run) == contents(whole)


@pytest.mark.parametrize("damaged", ["r001/server.pt", "r002/server.pt", "r003/server.pt"])
def test_a_lost_server_value_is_made_again(tmp_path: Path, holding: Holding, damaged: str) -> None:
    simulate(tmp_path, holding, SCAFFOLD)
    expected = contents(tmp_path)
    (tmp_path / damaged).unlink()
    simulate(tmp_path, holding, SCAFFOLD)
    assert contents(tmp_path) == expected


def test_as_many_clients_as_asked_take_part_and_each_round_draws_anew(
    tmp_path: Path, holding: Holding
) -> None:
    plan = replace(PLAN, sample_clients=2, rounds=4)
    simulate(tmp_path, holding, plan)
    members = []
    for number in range(4):
        record = json.loads((tmp_path / f"r{number:03d}" / "round.json").read_text())
        assert (record["round"], record["total_clients"], record["steps"]) == (number, 3, 2)
        assert record["clients"] == list(plan.drawn(number))
        assert (record["lr"], record["rate"]) == (0.05, 0.1)
        members.append(tuple(record["clients"]))
    assert all(len(set(clients)) == 2 for clients in members)
    assert len(set(members)) > 1


def test_every_client_is_drawn_as_often_as_any_other() -> None:
    plan = Plan(clients=10, sample_clients=3)
    times = Counter(client for number in range(1000) for client in plan.drawn(number))
    assert all(abs(times[client] - 300) < 75 for client in range(10))  # five standard deviations


def test_the_last_rounds_client_alone_is_what_it_is_among_all(
    tmp_path: Path, holding: Holding
) -> None:
    plan = replace(PLAN, local=Local("feddc", pull=0.5))
    simulate(tmp_path / "all", holding, plan)
    done = simulate(tmp_path / "one", holding, replace(plan, only=(1,)))
    assert [r.clients for r in done] == [(0, 1, 2), (0, 1, 2), (1,)]
    alone, whole = contents(tmp_path / "one"), contents(tmp_path / "all")
    assert {n for n in whole if n.endswith(".pt")} - set(alone) == {
        "r002/c0.pt",
        "r002/c2.pt",
        "r003/global.pt",
    }
    assert all(whole[n] == content for n, content in alone.items() if n.endswith(".pt"))
    simulate(tmp_path / "one", holding, plan)
    assert contents(tmp_path / "one") == whole


def test_training_goes_on_until_the_accuracy_is_reached_and_then_one_round(
    tmp_path: Path, holding: Holding
) -> None:
    plan = replace(PLAN, train_to=0.3, rounds=50, epochs=8)
    done = simulate(tmp_path, holding, plan)
    reached = [r.train_accuracy for r in done if r.clients]
    assert all(value is not None for value in reached)
    assert [value >= 0.3 for value in reached if value is not None] == [False] * (
        len(reached) - 1
    ) + [True]
    assert len(reached) > 1
    record = json.loads((tmp_path / f"r{len(reached) - 1:03d}" / "round.json").read_text())
    assert record["train_accuracy"] == reached[-1]
    assert reached[-1] is not None
    assert np.isclose(reached[-1], _accuracy(tmp_path, holding, len(reached) - 1))


def _accuracy(path: Path, holding: Holding, number: int) -> float:
    model = with_batch_norm()
    model.load_state_dict(read(path / f"r{number:03d}" / "global.pt"))
    pixels = torch.tensor(holding.client_images).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    with torch.no_grad():
        right = model.eval()(pixels).argmax(1).numpy() == holding.client_labels
    return float(right.mean())


def test_an_accuracy_that_is_never_reached_is_an_error(tmp_path: Path, holding: Holding) -> None:
    with pytest.raises(InputError, match="after 2 rounds") as caught:
        simulate(tmp_path, holding, replace(PLAN, train_to=1.0, rounds=2))
    assert caught.value.code == "E241"


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_kept_heads_are_those_of_the_whole_models(
    tmp_path: Path, holding: Holding, name: str
) -> None:
    plan = replace(PLAN, local=Local(name))
    simulate(tmp_path / "all", holding, plan)
    simulate(tmp_path / "heads", holding, replace(plan, keep="heads"))
    for file in sorted((tmp_path / "all").glob("r*/*.pt")):
        kept = read(tmp_path / "heads" / file.relative_to(tmp_path / "all"))
        whole = read(file)
        past = file.parent.name < "r002"
        assert set(kept) == ({"5.weight", "5.bias"} if past else set(whole))
        assert all(torch.equal(kept[name], whole[name]) for name in kept)


def test_kept_heads_are_all_that_a_history_needs(tmp_path: Path, holding: Holding) -> None:
    plan = replace(SCAFFOLD, rounds=4)
    found = []
    for keep in ("all", "heads"):
        simulate(tmp_path / keep, holding, replace(plan, keep=keep))
        here = tmp_path / keep / "r003"
        client = plan.drawn(3)[0]
        current = open_checkpoint(here / "global.pt")
        given: dict[str, Any] = {"rate": 0.1, "needs_server": True, "max_bytes": 2**30}
        history = read_history(tmp_path / keep, here / f"c{client}.pt", current, "5", **given)
        found.append(plan.rule.constant(history.past, 0.1, history.server))
    assert torch.equal(found[0].weight, found[1].weight)
    assert torch.equal(found[0].bias, found[1].bias)


def test_more_rounds_after_kept_heads_need_a_scheme_that_forgets(
    tmp_path: Path, holding: Holding
) -> None:
    for name in ("fedavg", "feddyn"):
        plan = replace(PLAN, local=Local(name, pull=0.5 * (name == "feddyn")), keep="heads")
        simulate(tmp_path / name, holding, plan)
        before = contents(tmp_path / name)
        simulate(tmp_path / name, holding, plan)
        assert contents(tmp_path / name) == before
    more = replace(PLAN, rounds=4)
    simulate(tmp_path / "fedavg", holding, more)
    simulate(tmp_path / "straight", holding, more)
    last = "r004/global.pt"
    assert contents(tmp_path / "fedavg")[last] == contents(tmp_path / "straight")[last]
    with pytest.raises(UsageError, match="whole model") as caught:
        simulate(tmp_path / "feddyn", holding, replace(plan, rounds=4))
    assert caught.value.code == "E106"
    assert contents(tmp_path / "feddyn") == before


def test_samples_limits_the_images_and_never_changes_them(tmp_path: Path, holding: Holding) -> None:
    plan = replace(PLAN, local=Local(samples=19), epochs=2)
    simulate(tmp_path, holding, plan)
    used: dict[int, list[int]] = {}
    for number in range(3):
        for client in range(3):
            truth = json.loads((tmp_path / f"r{number:03d}" / f"c{client}.truth.json").read_text())
            assert [sum(row) for row in truth["per_step"]] == [8, 8, 3] * 2
            one_pass = np.sum(truth["per_step"][:3], axis=0).tolist()
            assert truth["counts"] == (2 * np.array(one_pass)).tolist()
            assert used.setdefault(client, one_pass) == one_pass


def test_a_batch_of_one_image_that_the_model_cannot_train_on_is_refused(
    tmp_path: Path, holding: Holding
) -> None:
    def flat() -> torch.nn.Module:
        layers = (torch.nn.Linear(3072, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 10))
        return torch.nn.Sequential(torch.nn.Flatten(), *layers)

    plan = replace(PLAN, local=Local(samples=17))
    with pytest.raises(InputError, match="hold one image") as caught:
        simulate(tmp_path, holding, plan, factory=flat)
    assert caught.value.code == "E240"
    simulate(tmp_path, holding, plan)
