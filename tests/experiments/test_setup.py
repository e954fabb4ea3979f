"""Names of run folders, and requests that are those of `rlu simulate`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rlu_cli.cli import app
from rlu_cli.experiments import TARGETS
from rlu_cli.experiments.cell import Cell, chosen
from rlu_cli.experiments.images import drawn_images
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.scale import SCALES
from rlu_cli.experiments.setup import Setup, folder_name, usual
from rlu_cli.experiments.table2 import cells as cells_of_table2
from rlu_cli.experiments.table3 import cells as cells_of_table3
from rlu_cli.experiments.table4 import cells as cells_of_table4
from rlu_cli.experiments.table5 import cells as cells_of_table5
from rlu_cli.experiments.table6 import cells as cells_of_table6

CPU = torch.device("cpu")
ALL_CELLS = [cells_of_table2, cells_of_table3, cells_of_table4, cells_of_table5, cells_of_table6]


@pytest.mark.parametrize(
    ("setup", "name"),
    [
        (usual("SVHN", steps=1), "mnist32-lenet5-relu-m1-lr0.01-a0.5"),
        (usual("CIFAR10", act="elu", alpha=5.0), "mnist32-vgg16-elu-m10-lr0.01-a5"),
        (usual("CIFAR10", model="cnn", pretrain=0.4), "mnist32-cnn-relu-m10-lr0.01-a0.5-p0.4"),
        (usual("SVHN", scheme="scaffold"), "mnist32-lenet5-relu-m10-lr0.01-a0.5-scaffold"),
        (
            usual("SVHN", scheme="feddyn", pull=0.5, momentum=0.9, nesterov=True),
            "mnist32-lenet5-relu-m10-lr0.01-a0.5-feddyn0.5-g0.9-nag",
        ),
        (usual("SVHN", noise=0.1), "mnist32-lenet5-relu-m10-lr0.01-a0.5-n0.1batch"),
    ],
)
def test_a_folder_is_named_by_what_tells_runs_apart(setup: Setup, name: str) -> None:
    assert folder_name(setup, "mnist32") == name


@pytest.mark.parametrize("cells", ALL_CELLS)
def test_rows_of_different_runs_have_different_folders(cells: object) -> None:
    """But for the round: later rounds of one federation go on from earlier ones."""
    from dataclasses import replace

    setups = {replace(cell.setup, rounds=1) for cell in cells()}  # type: ignore[operator]
    assert len({(s.dataset, folder_name(s, s.dataset)) for s in setups}) == len(setups)


@pytest.mark.parametrize("cells", ALL_CELLS)
def test_rows_have_names_of_their_own_that_start_with_their_images(cells: object) -> None:
    rows: list[Cell] = cells()  # type: ignore[operator]
    assert len({cell.name for cell in rows}) == len(rows)
    assert all(cell.paper for cell in rows)


def test_a_run_that_rlu_simulate_began_is_taken_up(tmp_path: Path) -> None:
    """The same settings, so that the folder is resumed and not refused."""
    lab = Lab(None, tmp_path, SCALES["smoke"], CPU, "rlu reproduce")
    source = lab.source("SVHN")
    assert source is not None
    setup = lab.scale.fitted(usual("SVHN", steps=1, act="tanh", momentum=0.9, noise=0.1))
    folder = tmp_path / "runs" / folder_name(setup, source.slug)
    words = f"simulate --images {source.path} --model lenet5 --model-arg act=tanh --clients 2 "
    words += "--batch-size 16 --epochs 1 --aux-per-class 10 --momentum 0.9 --noise 0.1 -q "
    words += f"--alpha 0.5 --device cpu --only-clients 0 --out {folder}"
    assert CliRunner().invoke(app, words.split()).exit_code == 0
    before = json.loads((folder / "run.json").read_text())
    trained = (folder / "r000" / "c0.pt").stat().st_mtime_ns
    lab.train(setup, source, (0,))
    assert json.loads((folder / "run.json").read_text()) == before
    assert (folder / "r000" / "c0.pt").stat().st_mtime_ns == trained


def test_drawn_digits_hold_their_splits(tmp_path: Path) -> None:
    source = drawn_images("SVHN", tmp_path / "digits.npz", train=3, test=2)
    with np.load(source.path, allow_pickle=False) as drawn:
        counted = {split: int((drawn["split"] == split).sum()) for split in ("train", "test")}
    assert counted == {"train": 30, "test": 20}
    assert source.stand_in
    assert source.label == "drawn digits (stand-in for SVHN)"


@pytest.mark.parametrize(("most", "kept"), [(None, 3), (2, 2), (1, 1), (5, 3)])
def test_a_trial_takes_rows_from_both_ends(most: int | None, kept: int) -> None:
    cells = [Cell(f"row{n}", usual("SVHN")) for n in range(3)]
    names = [cell.name for cell in chosen(cells, None, most)]
    assert len(names) == kept
    assert names[0] == "row0"
    if kept > 1:
        assert names[-1] == "row2"


def test_a_pattern_picks_rows() -> None:
    picked = [cell.name for cell in chosen(cells_of_table2(), "CIFAR10-*m10", None)]
    assert picked == ["CIFAR10-relu-m10", "CIFAR10-elu-m10"]


def test_every_target_can_be_loaded() -> None:
    assert all(callable(target.load()) for target in TARGETS.values())
    assert [name for name, target in TARGETS.items() if target.name != name] == []


@pytest.mark.parametrize("scale", ["full", "small"])
def test_scales_keep_the_federation_and_take_fewer_clients(scale: str) -> None:
    lab = Lab(None, Path(), SCALES[scale], CPU, "")
    for cell in cells_of_table2():
        assert lab.scale.fitted(cell.setup) == cell.setup
        assert lab.clients(cell.setup) == tuple(range(len(lab.clients(cell.setup))))
    large = usual("Tiny")
    assert len(lab.clients(large)) == (10 if scale == "full" else 3)
    assert lab.auxiliary(large) == (100 if scale == "full" else 20)
