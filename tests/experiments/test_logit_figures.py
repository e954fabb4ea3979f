"""Figures 4 to 9: the logits that are shown are those of the clients' own steps."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rlu_cli.experiments import TARGETS, Nothing
from rlu_cli.experiments import training_logits as module
from rlu_cli.experiments.figures4to9 import FIGURES, setup_of
from rlu_cli.experiments.lab import Lab
from rlu_cli.experiments.logit_panels import PLACES, all_distances, draw_panels, panels
from rlu_cli.experiments.scale import DRAWN_ACCURACY, SCALES
from rlu_cli.experiments.setup import folder_name, usual
from rlu_cli.experiments.training_logits import Logits, training_logits
from rlu_cli.numerics.normality import describe_normality
from rlu_cli.simulator.client import to_pixels
from rlu_cli.simulator.simulation import Simulation

UNTRAINED, TRAINED = "figure4", "figure5"


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    out = tmp_path_factory.mktemp("logits")
    return Lab(None, out, SCALES["smoke"], torch.device("cpu"), "rlu reproduce figure4")


@pytest.fixture(scope="module")
def simulation(lab: Lab) -> Simulation:
    source = lab.source("SVHN")
    assert source is not None
    return lab.train(setup_of(FIGURES[UNTRAINED], lab.scale), source, (0,))


@pytest.fixture(scope="module")
def written(lab: Lab) -> dict[str, list[Path]]:
    pytest.importorskip("matplotlib")
    return {name: TARGETS[name].load()(lab, name) for name in (UNTRAINED, TRAINED)}


def _in_order(values: torch.Tensor) -> torch.Tensor:
    return values.sort(0).values


def test_every_image_is_shown_once_with_its_own_logits(simulation: Simulation) -> None:
    """A model without batch statistics or dropout gives an image the same logits in any order."""
    holding, model = simulation.federation.holding, simulation.factory()
    model.load_state_dict(simulation.run.require_global(0))
    with torch.inference_mode():
        pixels = simulation.federation.normalise(to_pixels(holding.client_images, model))
        expected = model(pixels)
    found = training_logits(simulation)
    labels = torch.tensor(holding.client_labels)
    for label in range(10):
        own = found.values[found.labels == label]
        assert torch.allclose(_in_order(own), _in_order(expected[labels == label]), atol=1e-5)


def test_parts_are_only_a_matter_of_memory(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = training_logits(simulation)
    monkeypatch.setattr(module, "PART", 70)
    parts = training_logits(simulation)
    assert len(parts.values) == len(whole.values)
    for label in range(10):
        one, other = (_in_order(part.values[part.labels == label]) for part in (whole, parts))
        assert torch.allclose(one, other, atol=1e-5)


class _Modes(nn.Module):
    """Logits of one image each; tells how it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 10)
        self.seen: list[tuple[bool, int]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, len(images)))
        logits: torch.Tensor = self.fc(images.mean((2, 3)))
        return logits


def test_the_model_is_run_as_in_a_clients_steps(
    simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _Modes()
    monkeypatch.setattr(type(simulation.run), "require_global", lambda run, n: model.state_dict())
    training_logits(replace(simulation, factory=lambda: model))
    assert set(model.seen) == {(True, simulation.federation.plan.batch_size)}


def test_a_panel_is_one_component_over_one_class() -> None:
    labels = torch.arange(40) % 10
    values = 100.0 * labels[:, None] + torch.arange(10.0) + torch.arange(40.0)[:, None] / 1e3
    shown = panels(Logits(values, labels))
    assert [(panel.true, panel.component) for panel in shown] == list(PLACES)
    for panel in shown:
        assert panel.values.long().tolist() == [100 * panel.true + panel.component] * 4
        assert panel.fit == describe_normality(panel.values)


def test_all_pairs_are_measured() -> None:
    values = torch.randn(90, 3, generator=torch.Generator().manual_seed(0))
    values[:, 2] = values[:, 2].exp() ** 2
    found = np.reshape(all_distances(Logits(values, torch.arange(90) % 3)), (3, 3))
    assert found[:, 2].min() > found[:, :2].max()


@pytest.mark.parametrize("fill", [0.0, 1e6])
def test_logits_that_do_not_vary_can_be_drawn(fill: float, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    logits = Logits(torch.full((40, 10), fill), torch.arange(40) % 10)
    draw_panels(panels(logits), "all the same", tmp_path / "flat.png")
    with Image.open(tmp_path / "flat.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("name", [UNTRAINED, TRAINED])
def test_files_of_a_figure(name: str, written: dict[str, list[Path]]) -> None:
    assert [file.name for file in written[name]] == [f"{name}.{s}" for s in ("md", "csv", "png")]
    with Image.open(written[name][2]) as picture:
        assert picture.format == "PNG"
    with written[name][1].open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(int(row["n"]), int(row["j"])) for row in rows] == list(PLACES)
    assert {row["images_of_n"] for row in rows} == {"60"}
    text = written[name][0].read_text("utf-8")
    assert "drawn digits (stand-in for SVHN)" in text
    for row in rows:
        assert f"| {float(row['mean']):.3g} | {float(row['sd']):.3g} |" in text
        assert f"| {float(row['distance']):.3f} |" in text


def test_the_accuracy_reached_is_told(lab: Lab, written: dict[str, list[Path]]) -> None:
    untrained, trained = (written[name][0].read_text("utf-8") for name in (UNTRAINED, TRAINED))
    assert "untrained" in untrained
    assert "pretrained centrally to" not in untrained
    with written[TRAINED][1].open(encoding="utf-8", newline="") as stream:
        reached = {float(row["train_accuracy"]) for row in csv.DictReader(stream)}
    assert len(reached) == 1
    assert min(reached) >= DRAWN_ACCURACY
    assert f"pretrained centrally to {min(reached):.1%} training accuracy" in trained
    assert "68% training accuracy" in trained  # the paper's, beside it


def test_figures_share_the_runs_of_the_tables() -> None:
    full, small = SCALES["full"], SCALES["small"]
    for name, dataset in {"figure4": "SVHN", "figure7": "CIFAR10"}.items():
        assert setup_of(FIGURES[name], small) == setup_of(FIGURES[name], full) == usual(dataset)


def test_the_quarter_width_stands_in_below_full_scale_under_its_own_name() -> None:
    names = ("figure8", "figure9")
    setups = {s: [setup_of(FIGURES[n], SCALES[s]) for n in names] for s in ("full", "small")}
    assert [setup.model for setup in setups["full"]] == ["vgg16", "vgg16"]
    assert [setup.title for setup in setups["small"]] == ["VGG-16 of quarter width"] * 2
    slugs = [folder_name(setup, "cifar10") for setup in setups["small"]]
    assert slugs == [f"cifar10-vgg16q-relu-m10-lr0.05-a0.5-p{p}" for p in ("0.8", "0.95")]


def test_missing_images_are_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lab = Lab(tmp_path, tmp_path, SCALES["small"], torch.device("cpu"), "rlu reproduce")
    with pytest.raises(Nothing, match="SVHN nor MNIST32"):
        TARGETS["figure4"].load()(lab, "figure4")
    with pytest.raises(Nothing, match="--only"):
        TARGETS["figure4"].load()(replace(lab, only="CIFAR10*"), "figure4")
