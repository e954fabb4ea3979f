"""Figures 10 and 11: how many classes clients hold, and the files that say it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rlu_cli.errors import UsageError
from rlu_cli.experiments import TARGETS, Nothing
from rlu_cli.experiments.figures10to11 import (
    ALPHAS,
    FIGURES,
    MOST,
    classes_held,
    classes_of_most,
)
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.scale import SCALES
from rlu_cli.experiments.setup import usual
from rlu_cli.simulator import partition_plot
from rlu_cli.simulator.images import load_pool
from rlu_cli.simulator.partition import partition
from rlu_cli.simulator.pool import set_apart

# Images of each class that one client has: classes held, and the fewest that are 95 % of them.
HELD = {
    (0, 0, 0): (0, 0),
    (7, 0, 0): (1, 1),
    (10, 10, 10): (3, 3),
    (95, 5, 0): (2, 1),  # exactly 95 %
    (94, 6, 0): (2, 2),
    (1, 2, 97): (3, 1),
    (19, 1, 0): (2, 1),
}


def _lab(out: Path, data: Path | None = None, scale: str = "smoke", **more: Any) -> Lab:
    return Lab(data, out, SCALES[scale], torch.device("cpu"), "rlu reproduce", **more)


def test_classes_are_counted() -> None:
    counts = np.array(list(HELD))
    assert list(zip(classes_held(counts), classes_of_most(counts), strict=True)) == [*HELD.values()]


def test_no_fewer_classes_would_do() -> None:
    counts = np.random.default_rng(4).poisson(3, (200, 12)) ** 2
    for row, needed in zip(counts, classes_of_most(counts), strict=True):
        largest = np.sort(row)[::-1]
        assert 100 * largest[:needed].sum() >= MOST * row.sum()
        assert not needed or 100 * largest[: needed - 1].sum() < MOST * row.sum()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, list[Path]]:
    pytest.importorskip("matplotlib")
    lab = _lab(tmp_path_factory.mktemp("figure10"))
    return lab, TARGETS["figure10"].load()(lab, "figure10")


def test_the_files_are_there(drawn: tuple[Lab, list[Path]]) -> None:
    names = [file.name for file in drawn[1]]
    assert names == ["figure10.md", "figure10.csv", "figure10.png"]
    with Image.open(drawn[1][2]) as picture:
        assert picture.format == "PNG"


def test_the_counts_are_those_of_the_runs(drawn: tuple[Lab, list[Path]]) -> None:
    lab, (_, table, _) = drawn
    setup, source = lab.scale.fitted(usual("CIFAR10")), lab.source("CIFAR10")
    assert source is not None
    holding = set_apart(load_pool(str(source.path), 0), lab.auxiliary(setup), 0)
    labels = holding.client_labels
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for alpha in ALPHAS:
        found = [int(row["count"]) for row in rows if float(row["alpha"]) == alpha]
        dealt = partition(labels, setup.clients, alpha, setup.batch, 0)
        assert found == dealt.counts(labels, 10).ravel().tolist()
        assert sum(found) == len(labels)


def test_the_text_names_the_stand_in_and_what_the_paper_says(
    drawn: tuple[Lab, list[Path]],
) -> None:
    text = drawn[1][0].read_text("utf-8")
    assert "drawn digits (stand-in for CIFAR10)" in text
    assert "600 training images of 10 classes" in text
    assert all(said in text for said in FIGURES["figure10"].paper.values())
    assert [f"| {alpha:g} |" in text for alpha in ALPHAS] == [True] * len(ALPHAS)


def test_without_images_nothing_is_drawn_under_their_name(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(Nothing, match="CIFAR100"):
        TARGETS["figure11"].load()(_lab(tmp_path, data=tmp_path, scale="small"), "figure11")
    assert not list(tmp_path.iterdir())


def test_only_leaves_it_out(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(Nothing, match="--only"):
        TARGETS["figure10"].load()(_lab(tmp_path, only="SVHN*"), "figure10")


def test_without_matplotlib_it_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition_plot, "find_spec", lambda name: None)
    for name in ("figure4", "figure10"):
        with pytest.raises(UsageError, match=name) as caught:
            TARGETS[name].load()(_lab(tmp_path), name)
        assert caught.value.code == "E107"
    assert not list(tmp_path.iterdir())
