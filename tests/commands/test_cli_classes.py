"""Which class is which: folder order, the order that is told, and what may not matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_world import Command, Refused, Words, World, trained_client, write_pair
from PIL import Image


def _renamed(world: World, folder: Path, names: list[str]) -> Path:
    """The images in folders of other names: class n of the model lies in names[n]."""
    for number, name in enumerate(names):
        shutil.copytree(world.aux / str(number), folder / name)
    return folder


def _with_aux(words: list[str], aux: Path) -> list[str]:
    words = [*words]
    words[words.index("--aux") + 1] = str(aux)
    return [*words, "--format", "json"]


@pytest.mark.parametrize(
    "names",
    [
        [str(n) for n in range(10)],
        [str(n) for n in range(2, 12)],
        [f"{n:03d}" for n in range(10)],
        ["7", "8", "9", "10", "11", "100", "101", "999", "1000", "20000"],
        list("abcdefghij"),
        ["B", "a", "a1", "a10", "a2", "b", "c", "d", "e", "é"],
    ],
)
def test_folders_in_order(
    names: list[str], told: Words, world: World, tmp_path: Path, rlu: Command
) -> None:
    """All-numeric names by number, any other by character."""
    words = _with_aux(told, _renamed(world, tmp_path / "named", names))
    if names != sorted(names):  # an untrained model cannot tell by which order it was trained
        asked = rlu(*words)
        assert asked.status == 2
        assert "E110" in asked.err
        words += ["--classes", ",".join(names)]
    result = rlu(*words)
    assert result.counts == world.counts
    assert [row["class"] for row in result.report["result"]["counts"]] == names


def test_the_mapping_is_shown(told: Words, world: World, tmp_path: Path, rlu: Command) -> None:
    names = [f"{letter}-class" for letter in "abcdefghij"]
    words = _with_aux(told, _renamed(world, tmp_path / "named", names))[:-2]
    out = rlu(*words).out
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    assert f"class order: {listed}" in out


def test_an_order_that_is_told(told: Words, world: World, work: Path, rlu: Command) -> None:
    """Folders are in the order of their names, the model's classes in another."""
    names = ["truck", "cat", "deer", "dog", "frog", "bird", "horse", "ship", "auto", "plane"]
    aux = _renamed(world, work / "named", names)
    (work / "rlu.toml").write_text(f"classes = {json.dumps(names)}")
    result = rlu(*_with_aux(told, aux))
    assert result.counts == world.counts
    assert [row["class"] for row in result.report["result"]["counts"]] == names


def test_truth_by_name_follows_the_order_that_is_told(
    told: Words, world: World, work: Path, rlu: Command
) -> None:
    names = list("jihgfedcba")
    aux = _renamed(world, work / "named", names)
    (work / "rlu.toml").write_text(f"classes = {json.dumps(names)}")
    (work / "t.json").write_text(json.dumps(dict(zip(names, world.counts, strict=True))))
    report = rlu(*_with_aux(told, aux), "--truth", "t.json").report
    assert report["metrics"]["exact"] == 1.0


def test_an_order_without_one_of_the_folders(
    told: Words, world: World, work: Path, refused: Refused
) -> None:
    aux = _renamed(world, work / "named", list("abcdefghij"))
    (work / "rlu.toml").write_text(f"classes = {json.dumps(list('abcdefghix'))}")
    refused("E221", 3, _with_aux(told, aux), "named", "the model does not have: j", "x")


def test_an_order_of_a_class_without_a_folder(
    told: Words, world: World, work: Path, refused: Refused
) -> None:
    aux = _renamed(world, work / "named", list("abcdefghij"))
    shutil.rmtree(aux / "e")
    (work / "rlu.toml").write_text(f"classes = {json.dumps(list('abcdefghij'))}")
    refused("E222", 3, _with_aux(told, aux), "e (0)")


def test_relabelled_classes_relabel_the_answer(
    world: World, tmp_path: Path, work: Path, rlu: Command
) -> None:
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    swapped = [
        {name: t[order] if name.startswith("fc3") else t for name, t in state.items()}
        for state in world.states
    ]
    names = [str(n) for n in order.tolist()]
    (work / "rlu.toml").write_text(f"classes = {json.dumps(names)}")
    pair = write_pair(tmp_path / "pair", *swapped)
    words = ["attack", *pair, "--aux", str(world.aux), *world.told, "--format", "json"]
    assert rlu(*words).counts == [world.counts[n] for n in order.tolist()]


def test_a_hundred_numbered_classes(tmp_path: Path, rlu: Command) -> None:
    """One linear layer, one example of class 37, and twos of 5 and 99."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 100)
    images = torch.rand(100, 3, 4, 4)
    for number in range(100):
        folder = tmp_path / "aux" / str(number)
        folder.mkdir(parents=True)
        for shade in (0.9, 1.0):
            pixels = (images[number] * shade * 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{shade}.png")
    labels = torch.tensor([37, 5, 5, 99, 99])
    before = {f"1.{name}": tensor.clone() for name, tensor in layer.state_dict().items()}
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    loss = torch.nn.functional.cross_entropy(layer(images[labels].flatten(1)), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = {f"1.{name}": tensor for name, tensor in layer.state_dict().items()}
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "def Net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(48, num_classes))\n"
    )
    words = ["--model", f"{code}:Net", "--normalize", "none", "--lr", 0.1, "--epochs", 1]
    words += ["--draws", 200, "--classes", ",".join(map(str, range(100)))]
    pair = write_pair(tmp_path / "pair", before, after)
    result = rlu(
        "attack", *pair, "--aux", tmp_path / "aux", *words, "--batch-size", 5, "--format", "json"
    )
    found = {n: count for n, count in enumerate(result.counts) if count}
    assert found == {5: 2, 37: 1, 99: 2}
    assert [row["class"] for row in result.report["result"]["counts"]] == [
        str(n) for n in range(100)
    ]


Trained = tuple[Path, Words, list[int]]  # folder, options that name the pair, true counts
BATCH_NORM = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            nn.Conv2d(3, 12, 5, 2, 2), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.1), nn.Linear(24 * 16, num_classes),
        )
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A BatchNorm network that has learned the digits, and a client's round on it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "net.py").write_text(BATCH_NORM)
    scope: dict[str, Any] = {"__name__": "net"}
    exec(BATCH_NORM, scope)
    before, after, counts = trained_client(scope["Net"], warm=150, steps=5)
    return folder, list(write_pair(folder / "pair", before, after)), counts


def test_file_names_do_not_matter_on_a_trained_batchnorm_model(
    trained: Trained, world: World, tmp_path: Path, rlu: Command
) -> None:
    """Which images share a batch must not hang on what they are called."""
    folder, pair, counts = trained
    words = ["--model", f"{folder / 'net.py'}:Net", "--normalize", "half", "--lr", "0.01"]
    words += ["--epochs", "5", "--batch-size", "8", "--format", "json"]
    reports = []
    for seed in (None, 1, 2):
        aux = world.aux
        if seed is not None:
            aux = Path(shutil.copytree(world.aux, tmp_path / f"aux{seed}"))
            order = np.random.default_rng(seed).permutation(1000)
            for number, file in enumerate(sorted(aux.rglob("*.png"))):
                file.rename(file.with_name(f"r{order[number]:04d}.png"))
        reports.append(rlu("attack", *pair, "--aux", aux, *words).report)
    assert reports[0]["settings"]["mode"]["value"] == "train"
    assert reports[0]["diagnostics"]["accuracy_before"] > 0.3, "the model has learned something"
    assert reports[0]["result"]["total"] == sum(counts)
    assert len({report["inputs"]["aux"]["sha256"] for report in reports}) == 3
    for report in reports[1:]:
        assert report["result"] == reports[0]["result"]
        assert report["diagnostics"] == reports[0]["diagnostics"]


def test_the_files_are_left_as_they_were(trained: Trained, world: World, rlu: Command) -> None:
    folder, pair, _ = trained
    contents = [Path(path).read_bytes() for path in pair[1::2]]
    words = ["--model", f"{folder / 'net.py'}:Net", "--normalize", "half", "--lr", "0.01"]
    assert rlu("attack", *pair, "--aux", world.aux, *words, "--epochs", 5).status == 0
    assert [Path(path).read_bytes() for path in pair[1::2]] == contents
