"""Whole runs on disk: what they write, that they resume, and what they refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import Killed, contents, read, simulate
from torch import Tensor, nn

from rlu_cli.errors import InputError, RluError, UsageError
from rlu_cli.local_training.batch_order import draw_batches
from rlu_cli.simulator.aggregate import average
from rlu_cli.simulator.defences import Defence
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.partition import partition
from rlu_cli.simulator.plan import Plan, check_plan
from rlu_cli.simulator.pool import Holding, content_hashes
from rlu_cli.simulator.run_folder import RunFolder

DRAWN = Plan(sample_clients=1).drawn(0)
PLAN = Plan(clients=3, alpha=1.0, lr=0.05, batch_size=8, epochs=2, rounds=2, seed=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, holding: Holding) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    simulate(path, holding, PLAN)
    return path


def test_the_layout_is_complete(finished: Path) -> None:
    for number in range(2):
        names = {p.name for p in (finished / f"r{number:03d}").iterdir()}
        clients = {f"c{k}{suffix}" for k in range(3) for suffix in (".pt", ".truth.json")}
        assert names == {"global.pt", "round.json"} | clients
    assert {p.name for p in (finished / "r002").iterdir()} == {"global.pt"}
    assert len(list(finished.glob("aux/*/*.png"))) == 30


def test_truth_counts_sum_to_the_labels_used(finished: Path) -> None:
    for file in finished.glob("r*/*.truth.json"):
        truth = json.loads(file.read_text())
        assert sum(truth["counts"]) == PLAN.epochs * PLAN.batch_size
        assert np.sum(truth["per_step"], axis=0).tolist() == truth["counts"]
        assert len(truth["classes"]) == len(truth["counts"])


def test_the_next_global_model_is_the_mean_of_the_clients_buffers_too(finished: Path) -> None:
    clients = [read(finished / "r000" / f"c{k}.pt") for k in range(3)]
    following = read(finished / "r001" / "global.pt")
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(following)
    for name, value in following.items():
        mean = torch.stack([c[name].double() for c in clients]).mean(0)
        assert torch.allclose(value.double(), mean, atol=1e-6), name
    assert int(following["1.num_batches_tracked"]) == PLAN.epochs


def test_averaging_weighs_by_samples_and_rounds_counters() -> None:
    def state(value: float, count: int) -> dict[str, Tensor]:
        return {"w": torch.tensor([value]), "n": torch.tensor(count)}

    mean = average([state(0.0, 3), state(4.0, 4)], [1, 3])
    assert mean["w"].tolist() == [3.0]
    assert mean["w"].dtype == torch.float32
    assert mean["n"].dtype == torch.int64
    assert int(mean["n"]) == 4


def test_same_seed_same_bytes_and_other_seed_other_model(
    tmp_path: Path, finished: Path, holding: Holding
) -> None:
    simulate(tmp_path / "again", holding, PLAN)
    assert contents(tmp_path / "again") == contents(finished)
    simulate(tmp_path / "other", holding, replace(PLAN, seed=5))
    other = contents(tmp_path / "other")
    assert other["r000/global.pt"] != contents(finished)["r000/global.pt"]


@pytest.mark.parametrize("steps", [1, 3, 5, 8, 11])
def test_a_run_killed_anywhere_ends_as_if_it_had_not_been(
    tmp_path: Path, finished: Path, holding: Holding, steps: int
) -> None:
    left = iter(range(steps))

    def kill(done: int) -> None:
        if next(left, None) is None:
            raise Killed

    with pytest.raises(Killed):
        simulate(tmp_path / "run", holding, PLAN, tick=kill)
    simulate(tmp_path / "run", holding, PLAN)
    assert contents(tmp_path / "run") == contents(finished)


@pytest.mark.parametrize(
    "damage",
    [
        lambda run: (run / "r001" / "c2.truth.json").unlink(),
        lambda run: (run / "r001" / "c2.pt").unlink(),
        lambda run: (run / "r001" / "c2.pt").write_bytes(b"PK\3\4 cut short"),
        lambda run: (run / "r001" / ".c2.pt.partial").write_bytes(b"half"),
        lambda run: (run / "r001" / "global.pt").unlink(),
        lambda run: (run / "r002" / "global.pt").unlink(),
        lambda run: (run / "r000" / "round.json").unlink(),
        lambda run: (run / "aux" / "3" / "00001.png").unlink(),
        lambda run: (run / "rlu.toml").unlink(),
    ],
)
def test_what_is_missing_or_broken_is_made_again(
    tmp_path: Path, finished: Path, holding: Holding, damage: Callable[[Path], None]
) -> None:
    run = tmp_path / "run"
    simulate(run, holding, PLAN)
    damage(run)
    simulate(run, holding, PLAN)
    assert contents(run) == contents(finished)


def test_complete_clients_are_not_trained_again(tmp_path: Path, holding: Holding) -> None:
    simulate(tmp_path, holding, PLAN)
    stamps = {f: f.stat().st_mtime_ns for f in tmp_path.glob("r*/*.pt")}
    for file in stamps:
        os.utime(file, ns=(0, 0))
    rounds = simulate(tmp_path, holding, PLAN)
    assert [r.reused for r in rounds[:2]] == [3, 3]
    assert all(file.stat().st_mtime_ns == 0 for file in stamps)


def test_more_rounds_go_on_from_a_finished_run(
    tmp_path: Path, finished: Path, holding: Holding
) -> None:
    simulate(tmp_path, holding, replace(PLAN, rounds=1))
    simulate(tmp_path, holding, PLAN)
    assert contents(tmp_path) == contents(finished)


def test_some_clients_alone_are_what_they_are_among_all(
    tmp_path: Path, finished: Path, holding: Holding
) -> None:
    simulate(tmp_path, holding, replace(PLAN, rounds=1, only=(1,)))
    written, whole = contents(tmp_path), contents(finished)
    assert {n for n in written if n.startswith("r0") and n.endswith(".pt")} == {
        "r000/global.pt",
        "r000/c1.pt",
    }
    assert written["r000/c1.pt"] == whole["r000/c1.pt"]
    assert json.loads(written["r000/round.json"])["clients"] == [1]


def test_a_folder_of_something_else_is_refused_even_by_force(
    tmp_path: Path, holding: Holding
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match="refused to write") as caught:
            simulate(tmp_path, holding, PLAN, force=force)
        assert caught.value.code == "E106"
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_other_settings_are_refused_and_replaced_by_force(
    tmp_path: Path, finished: Path, holding: Holding
) -> None:
    run = tmp_path / "run"
    simulate(run, holding, replace(PLAN, seed=5, rounds=3))
    (run / "notes.txt").write_text("mine")
    with pytest.raises(UsageError) as caught:
        simulate(run, holding, PLAN)
    assert caught.value.code == "E106"
    assert "seed 5 → 4" in caught.value.why
    simulate(run, holding, PLAN, force=True)
    assert contents(run) == {**contents(finished), "notes.txt": b"mine"}
    assert not (run / "r003").exists()


def _for_other_classes() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))


def test_a_run_refused_before_it_wrote_a_model_is_in_nobodys_way(
    tmp_path: Path, finished: Path, holding: Holding
) -> None:
    with pytest.raises(InputError):
        simulate(tmp_path, holding, replace(PLAN, seed=5), factory=_for_other_classes)
    simulate(tmp_path, holding, PLAN)
    assert contents(tmp_path) == contents(finished)


def test_force_deletes_nothing_behind_a_link(tmp_path: Path, holding: Holding) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    simulate(run, holding, replace(PLAN, seed=5))
    elsewhere.mkdir()
    (elsewhere / "global.pt").write_bytes(b"mine")
    (run / "r009").symlink_to(elsewhere, target_is_directory=True)
    simulate(run, holding, PLAN, force=True)
    assert (elsewhere / "global.pt").read_bytes() == b"mine"


def test_auxiliary_files_hold_none_of_the_clients_images(finished: Path, holding: Holding) -> None:
    files = sorted(finished.glob("aux/*/*.png"))
    on_disk = content_hashes(np.stack([np.asarray(Image.open(f)) for f in files]))
    assert set(on_disk) == set(content_hashes(holding.aux_images))
    assert set(on_disk).isdisjoint(content_hashes(holding.client_images))


def test_truth_is_that_of_the_clients_own_images(finished: Path, holding: Holding) -> None:
    """Batches are redrawn from the seed alone, outside the training loop."""
    shares = partition(holding.client_labels, 3, PLAN.alpha, PLAN.batch_size, PLAN.seed)
    labels = holding.client_labels[shares.owned[2]]
    rng = np.random.default_rng((PLAN.seed, 4, 1, 2))
    batches = np.concatenate(draw_batches(len(labels), PLAN.steps, rng))
    truth = json.loads((finished / "r001" / "c2.truth.json").read_text())
    assert truth["counts"] == np.bincount(labels[batches], minlength=10).tolist()


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (Plan(clients=0, epochs=0), "E101"),
        (Plan(alpha=float("nan")), "E101"),
        (Plan(lr=-1.0), "E101"),
        (Plan(only=(10,)), "E101"),
        (Plan(sample_clients=11), "E101"),
        (Plan(train_to=1.5, pretrain=-0.1), "E101"),
        (Plan(keep="some"), "E101"),
        (Plan(sample_clients=1, only=tuple(set(range(10)) - set(DRAWN))), "E106"),
        (Plan(local=Local(scheme="fedsgd", optimizer="lion")), "E101"),
        (Plan(local=Local(momentum=1.0)), "E101"),
        (Plan(local=Local(betas=(0.9, 1.0), optimizer="adam")), "E101"),
        (Plan(local=Local(lr_schedule="linear")), "E101"),
        (Plan(local=Local(lr_schedule="step:1:2:3")), "E101"),
        (Plan(local=Local(clip=0.0, label_smoothing=1.0)), "E101"),
        (Plan(local=Local(samples=0)), "E101"),
        (Plan(local=Local(pull=0.5)), "E106"),
        (Plan(local=Local(scheme="scaffold", pull=0.5)), "E106"),
        (Plan(local=Local(nesterov=True)), "E106"),
        (Plan(local=Local(optimizer="adam", momentum=0.9)), "E106"),
        (Plan(local=Local(betas=(0.5, 0.9))), "E106"),
        (Plan(local=Local(drop_last=True)), "E106"),
        (Plan(local=Local(samples=20, drop_last=True)), "E106"),
        (Plan(local=Local(samples=65, steps_per_epoch=1)), "E106"),
        (Plan(defence=Defence(noise=-1.0)), "E101"),
        (Plan(defence=Defence(noise=1.0, noise_on="both")), "E101"),
        (Plan(defence=Defence(topk=0.0)), "E101"),
        (Plan(defence=Defence(dp_noise=0.0, dp_clip=1.0)), "E101"),
        (Plan(defence=Defence(noise_on="sample")), "E106"),
        (Plan(defence=Defence(dp_noise=1.0)), "E106"),
        (Plan(defence=Defence(dp_noise=1.0, dp_clip=1.0, noise=1.0)), "E106"),
    ],
)
def test_impossible_plans_are_refused(plan: Plan, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_plan(plan)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "factory",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, 10)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)),
    ],
)
def test_a_model_for_other_images_or_classes_fails_before_training(
    tmp_path: Path, holding: Holding, factory: Callable[[], nn.Module]
) -> None:
    with pytest.raises(InputError) as caught:
        simulate(tmp_path, holding, PLAN, factory=factory)
    assert caught.value.code == "E215"


def test_divergence_names_the_round_and_the_client(tmp_path: Path, holding: Holding) -> None:
    with pytest.raises(RluError, match="round 0, client 0: training diverged"):
        simulate(tmp_path, holding, replace(PLAN, lr=1e30))


def test_a_run_folder_reads_nothing_where_nothing_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {}, ())
    assert run.read_global(0) is None
    assert run.read_client(0, 0) is None
    assert run.recorded_accuracy(0) is None
