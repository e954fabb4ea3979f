"""Models of the user's own, the forms checkpoints come in, and what is recognised in them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_world import (
    Command,
    Files,
    Refused,
    State,
    Words,
    World,
    trained_client,
    write_pair,
)
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from rlu_cli.models import build_model

OWN = """
from dataclasses import dataclass
from rlu_cli.models.lenet import lenet5
from torch import Tensor, nn

@dataclass
class Out:
    logits: Tensor

class Net(nn.Module):
    def __init__(self, num_classes, gives="logits", bias=True):
        super().__init__()
        for name, module in lenet5(num_classes=num_classes).named_children():
            self.add_module(name, module)
        self.fc3 = nn.Linear(84, num_classes, bias=bias)
        self.gives = gives

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return {"dict": {"logits": x, "aux": None}, "object": Out(x)}.get(self.gives, x)

def factory(**given):
    return Net(10, **given)

def broken():
    raise ValueError("no weights here")

def odd():
    return 3
"""


@pytest.fixture
def own(work: Path) -> Iterator[Path]:
    package = work / "userpkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mod.py").write_text(OWN)
    (work / "model.py").write_text(OWN)
    yield work
    for name in ("userpkg", "userpkg.mod"):
        sys.modules.pop(name, None)


@pytest.fixture
def plain(untold: list[str]) -> list[str]:
    rates = ["--lr", "0.01", "--epochs", "2", "--batch-size", "8", "--draws", "200"]
    return [*untold, *rates, "--normalize", "half", "--format", "json"]


@pytest.mark.parametrize("gives", ["logits", "dict", "object"])
@pytest.mark.parametrize("name", ["model.py:Net", "./model.py:factory", "userpkg.mod:factory"])
def test_a_model_of_the_users_own(
    name: str, gives: str, own: Path, plain: Words, world: World, rlu: Command
) -> None:
    result = rlu(*plain, "--model", name, "--model-arg", f"gives={gives}")
    assert result.counts == world.counts
    assert result.report["settings"]["model"] == {"value": name, "source": "flag"}
    assert result.report["settings"]["model_args"]["value"] == {"gives": gives}


def test_a_head_without_a_bias(
    own: Path, plain: Words, world: World, tmp_path: Path, rlu: Command
) -> None:
    def build() -> nn.Module:
        return build_model("model.py:Net", arguments={"bias": False}, classes=10)

    before, after, counts = trained_client(build)
    words = ["attack", *write_pair(tmp_path / "pair", before, after), *plain[5:]]
    result = rlu(*words, "--model", "model.py:Net", "--model-arg", "bias=False")
    assert result.counts == counts
    assert result.report["output_layer"] == {
        **result.report["output_layer"],
        "name": "fc3",
        "classes": 10,
        "width": 84,
        "bias": False,
    }
    assert result.report["diagnostics"]["bias_sum"] is None


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("model.py:broken", "no weights here"),
        ("model.py:odd", "not a torch.nn.Module"),
        ("model.py:Nett", "did you mean Net"),
        ("modle.py:Net", "did you mean model.py"),
        ("userpkg.mot:Net", "did you mean mod"),
        ("no_such_package.mod:Net", "no_such_package"),
    ],
)
def test_code_that_fails_is_the_users(
    name: str, named: str, own: Path, plain: Words, refused: Refused
) -> None:
    refused("E216", 3, [*plain, "--model", name], named)


def test_a_model_that_does_not_fit_the_weights(own: Path, plain: Words, refused: Refused) -> None:
    words = [*plain, "--model", "model.py:Net", "--model-arg", "bias=False"]
    refused("E215", 3, words, "g.pt", "fc3.bias")


# Forms of checkpoints


def _trainer(state: dict[str, torch.Tensor], lr: float) -> dict[str, object]:
    groups = [{"lr": lr, "momentum": 0, "params": [0]}]
    return {"epoch": 3, "model": state, "optimizer": {"state": {}, "param_groups": groups}}


FORMS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "module.": lambda state: {f"module.{name}": t for name, t in state.items()},
    "_orig_mod.module.": lambda state: {f"_orig_mod.module.{n}": t for n, t in state.items()},
    "wrapped": lambda state: {"state_dict": {f"_module.{n}": t for n, t in state.items()}},
    "trainer": lambda state: _trainer(state, 0.01),
    "half": lambda state: {name: tensor.half() for name, tensor in state.items()},
    "double": lambda state: {name: tensor.double() for name, tensor in state.items()},
}


@pytest.mark.parametrize("form", list(FORMS))
def test_forms_of_the_same_state(form: str, files: Files, world: World, rlu: Command) -> None:
    pair = [FORMS[form](state) for state in world.states]
    assert rlu(*files(*pair), "--format", "json").counts == world.counts


@pytest.mark.parametrize("zipped", [True, False])
def test_either_torch_format(zipped: bool, files: Files, world: World, rlu: Command) -> None:
    def save(state: object, path: Path) -> None:
        torch.save(state, path, _use_new_zipfile_serialization=zipped)

    assert rlu(*files(*world.states, save=save), "--format", "json").counts == world.counts


def test_safetensors_under_any_name(files: Files, world: World, rlu: Command) -> None:
    def save(state: dict[str, torch.Tensor], path: Path) -> None:
        save_file(state, path)

    assert rlu(*files(*world.states, save=save), "--format", "json").counts == world.counts


def test_only_one_of_the_two_is_wrapped(files: Files, world: World, rlu: Command) -> None:
    before, after = world.states
    words = files(FORMS["module."](before), FORMS["trainer"](after))
    assert rlu(*words, "--format", "json").counts == world.counts


def test_the_rate_is_read_from_the_optimiser(world: World, tmp_path: Path, rlu: Command) -> None:
    before, after = world.states
    pair = write_pair(tmp_path / "pair", before, _trainer(after, 0.01))
    words = ["attack", *pair, "--aux", world.aux, "--epochs", 2, "--batch-size", 8]
    result = rlu(*words, "--draws", 200, "--format", "json")
    source = "c.pt: optimizer.param_groups[0].lr"
    assert result.report["settings"]["lr"] == {"value": 0.01, "source": source}
    assert result.counts == world.counts


# What is recognised


@pytest.mark.parametrize("act", ["relu", "tanh", "elu", "selu", "silu"])
def test_the_activation_is_told_from_the_update(
    act: str, world: World, tmp_path: Path, rlu: Command
) -> None:
    before, after, counts = trained_client(lambda: build_model("lenet5", arguments={"act": act}))
    pair = write_pair(tmp_path / "pair", before, after)
    words = ["attack", *pair, "--aux", world.aux, "--lr", 0.01, "--epochs", 2, "--batch-size", 8]
    words += ["--normalize", "half", "--draws", 200]
    result = rlu(*words, "--format", "json")
    report = result.report
    assert report["settings"]["model_args"] == {"value": {"act": act}, "source": "fit to the files"}
    assert result.counts == counts
    measured = {r["arguments"]["act"]: r["embedding_cosine"] for r in report["readings"]}
    assert set(measured) == {"relu", "tanh", "elu", "selu", "silu"}
    assert measured[act] > 0.85
    weights = {r["arguments"]["act"]: r["weight"] for r in report["readings"]}
    assert sum(weights.values()) == pytest.approx(1)
    assert weights[act] == max(weights.values()) > 0.5
    shown = rlu(*words).out
    assert "norm ratio" in shown
    for cosine in measured.values():
        assert f"{cosine:.3f}" in shown


def test_activation_and_scaling_are_told_together(
    untold: Words, world: World, rlu: Command
) -> None:
    rates = ["--lr", "0.01", "--epochs", "2", "--batch-size", "8", "--draws", "200"]
    result = rlu(*untold, *rates, "--format", "json")
    settings = result.report["settings"]
    assert settings["model_args"] == {"value": {"act": "relu"}, "source": "fit to the files"}
    assert settings["normalize"] == {"value": "half", "source": "fit to the files"}
    assert result.counts == world.counts
    readings = result.report["readings"]
    assert len(readings) == 35
    measured = [r for r in readings if r["embedding_cosine"] is not None]
    assert len(measured) <= 30  # twice what every activation under three scalings takes
    assert all(r["weight"] == 0 for r in readings if r not in measured)


def test_what_is_given_is_not_measured(told: Words, rlu: Command) -> None:
    report = rlu(*told, "--format", "json").report
    assert [r["embedding_cosine"] for r in report["readings"]] == [None]
    assert "embedding cosine" in rlu(*told).out  # the check of the one that is taken


def test_scalings_that_change_nothing_need_not_be_given(
    own: Path, files: Files, world: World, tmp_path: Path, rlu: Command
) -> None:
    """A network that normalises its input gives the same answer under every scaling."""
    (own / "flat.py").write_text(
        "from torch import nn\n"
        "def Net():\n"
        "    return nn.Sequential(nn.InstanceNorm2d(3), nn.Flatten(), nn.Linear(3072, 10))\n"
    )
    torch.manual_seed(0)
    before = {"2.weight": torch.randn(10, 3072) / 100, "2.bias": torch.zeros(10)}
    after = {name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in before.items()}
    pair = write_pair(tmp_path / "pair", before, after)
    words = ["attack", *pair, "--aux", str(world.aux), "--lr", "0.1", "--epochs", "1"]
    words += ["--model", "flat.py:Net", "--image-size", "32", "--format", "json"]
    report = rlu(*words).report
    assert len({r["normalize"] for r in report["readings"]}) == 7
    assert not any(line.startswith("averaged") for line in report["assumptions"])


# Images


def test_an_archive_with_splits(told: Words, world: World, work: Path, rlu: Command) -> None:
    images, labels = [], []
    for folder in sorted(world.aux.iterdir()):
        for file in sorted(folder.iterdir()):
            with Image.open(file) as image:
                images.append(np.asarray(image))
            labels.append(int(folder.name))
    pixels, classes = np.stack(images), np.asarray(labels)
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    split = np.array(["test"] * 40 + ["train"] * 40)
    names = np.array([f"digit {n}" for n in range(10)])
    np.savez(
        work / "aux.npz",
        images=np.concatenate([pixels, noise]),
        labels=np.concatenate([classes, classes]),
        split=split,
        class_names=names,
    )
    told[told.index("--aux") + 1] = "aux.npz"
    folders = rlu(*told[:-2], "--aux", world.aux, "--format", "json").report
    taken = rlu(*told[:-2], "--format", "json")
    assert taken.counts == world.counts
    assert taken.report["methods"][0]["method"] == "pooled"
    assert taken.report["diagnostics"] == folders["diagnostics"]
    assert "test" in " ".join(taken.report["assumptions"])
    assert [row["class"] for row in taken.report["result"]["counts"]] == names.tolist()
    other = rlu(*told, "--aux-split", "train", "--format", "json").report
    cosines = [r["diagnostics"]["embedding_cosine"] for r in (taken.report, other)]
    assert cosines[0] != cosines[1]
    assert "train" in " ".join(other["assumptions"])


def test_grey_images_and_other_sizes(told: Words, world: World, work: Path, rlu: Command) -> None:
    for file in world.aux.rglob("*.png"):
        target = work / "grey" / file.relative_to(world.aux)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:
            image.convert("L").resize((40, 36)).save(target)
    told[told.index("--aux") + 1] = "grey"
    result = rlu(*told, "--format", "json")
    assert result.counts == world.counts  # an untrained model sees little of either


def test_some_images_of_each_class(told: Words, rlu: Command) -> None:
    def seen(*more: object) -> tuple[list[float], float]:
        report = rlu(*told, "--method", "rlu", *more, "--format", "json").report
        cosine: float = report["diagnostics"]["embedding_cosine"]
        return [row["share"] for row in report["result"]["counts"]], cosine

    few = ("--aux-per-class", 2)
    some, every = seen(*few, "--seed", 1), seen("--seed", 1)
    assert some == seen(*few, "--seed", 1)
    assert all(one != other for one, other in zip(some, every, strict=True))
    assert seen("--aux-per-class", 100, "--seed", 1) == every


# Noise in place of images


def test_noise_stands_in_for_an_untrained_models_images(world: World, rlu: Command) -> None:
    words = ["attack", *world.pair, "--aux", "none", *world.told]
    result = rlu(*words, "--format", "json")
    assert result.counts == world.counts
    assert "noise" in " ".join(result.report["assumptions"])
    assert "noise" in rlu(*words).out
    assert "aux" not in result.report["inputs"]
    assert result.report["diagnostics"]["accuracy_before"] is None


@pytest.fixture(scope="module")
def learned() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A LeNet-5 that has learned some digits, after and before a client's round."""
    build = lambda: build_model("lenet5", arguments={"act": "tanh"})  # noqa: E731
    before, after, _ = trained_client(build, warm=150)
    return before, after


def test_noise_is_refused_for_a_trained_model(
    learned: tuple[State, State], world: World, tmp_path: Path, refused: Refused
) -> None:
    words = ["attack", *write_pair(tmp_path / "pair", *learned), "--aux", "none", *world.told]
    refused("E225", 3, [*words, "--model-arg", "act=tanh"], "trained", "--aux DIR")


def test_noise_is_refused_for_a_trained_model_that_is_undecided_on_noise(
    refused: Refused, work: Path
) -> None:
    """The sample's global model answers noise as evenly as an untrained one does."""
    sample = Path(__file__).parents[2] / "sample_data" / "trained"
    pair = ["--global", str(sample / "g.pt"), "--local", str(sample / "c3.pt")]
    refused("E225", 3, ["attack", *pair, "--aux", "none", "--draws", "200"], "trained")


def test_noise_of_a_size_that_nobody_said(
    own: Path, world: World, tmp_path: Path, refused: Refused
) -> None:
    (own / "pool.py").write_text(
        "from torch import nn\n"
        "def Net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),"
        " nn.Linear(8, 10))\n"
    )
    torch.manual_seed(0)
    before = {"0.weight": torch.randn(8, 3, 3, 3), "0.bias": torch.zeros(8)}
    before |= {"3.weight": torch.randn(10, 8), "3.bias": torch.zeros(10)}
    after = {**before, "3.bias": torch.randn(10)}
    pair = write_pair(tmp_path / "pair", before, after)
    words = ["attack", *pair, "--aux", "none", "--lr", "0.1", "--epochs", "1"]
    refused("E102", 2, [*words, "--model", "pool.py:Net"], "--image-size")
