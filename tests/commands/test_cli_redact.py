"""--redact: scores and checks stay, and nothing of the client is left anywhere in the text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from cli_world import Command, Words, World

NAMES = [f"secretclass{letter}" for letter in "abcdefghij"]


@pytest.fixture
def words(world: World, tmp_path: Path, work: Path) -> list[str]:
    """An attack where every path and class has a name of its own."""
    folder = tmp_path / "privatefolder"
    for number, name in enumerate(NAMES):
        shutil.copytree(world.aux / str(number), folder / name)
    (folder / NAMES[3] / "privatefile.png").write_text("not an image")
    home = tmp_path / "privatehome"
    home.mkdir()
    optimiser = {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]}
    after = {"model": world.state(world.after), "optimizer": optimiser}
    torch.save(after, home / "privateclient.pt")
    shutil.copy(world.before, home / "privateglobal.pt")
    (home / "privatetruth.json").write_text(json.dumps(dict(zip(NAMES, world.counts, strict=True))))
    listed = f"classes = {json.dumps(NAMES)}\n"
    (home / "rlu.toml").write_text(f'{listed}truth = "privatetruth.json"\nseed = 3')
    pair = ["--global", home / "privateglobal.pt", "--local", home / "privateclient.pt"]
    (work / "privatenet.py").write_text("from rlu_cli.models.lenet import lenet5 as Net\n")
    rest = ["--epochs", 2, "--batch-size", 8, "--normalize", "half", "--draws", 200]
    return ["attack", *map(str, [*pair, "--aux", folder, *rest])]


@pytest.fixture(params=[("--model", "lenet5"), (), ("--model", "privatenet.py:Net")])
def model(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


@pytest.mark.parametrize("form", ["json", "table"])
def test_nothing_of_the_client_is_left(
    form: str, model: Words, words: Words, world: World, tmp_path: Path, rlu: Command
) -> None:
    shown = rlu(*words, *model, "--format", form)
    hidden = rlu(*words, *model, "--format", form, "--redact")
    assert hidden.status == 0
    assert "secretclass" in shown.out
    assert "privateclient" in shown.out
    for told in ("secretclass", "private", tmp_path.name):
        assert told not in hidden.out + hidden.err


def test_counts_and_shares_are_gone_and_scores_stay(words: Words, rlu: Command) -> None:
    whole = rlu(*words, "--format", "json").report
    report = rlu(*words, "--format", "json", "--redact").report
    for result in (report["result"], *(method["result"] for method in report["methods"])):
        rows = [{key: row[key] for key in ("class", "count", "share")} for row in result["counts"]]
        assert rows == [{"class": None, "count": None, "share": None}] * 10
    assert report["redacted"] is True
    assert report["metrics"] == whole["metrics"]
    assert report["diagnostics"] == whole["diagnostics"]
    assert {name: given["path"] for name, given in report["inputs"].items()} == dict.fromkeys(
        name
        for name in whole["inputs"]
        if name != "truth"  # the hash of a few counts can be guessed
    )
    scores = ("metrics", "diagnostics")  # the same as in the whole report: one may equal a share
    for part in (report, *report["methods"]):
        for name in scores:
            del part[name]
    text = json.dumps(report)
    for row in whole["result"]["counts"]:
        assert row["share"] == 0 or str(row["share"]) not in text


def test_sources_name_no_file(words: Words, rlu: Command) -> None:
    settings = rlu(*words, "--format", "json", "--redact").report["settings"]
    assert settings["lr"] == {"value": 0.01, "source": "file"}
    assert settings["seed"] == {"value": 3, "source": "file"}
    assert settings["epochs"]["source"] == "flag"
    assert not {"classes", "truth", "output"} & set(settings)


def test_skipped_files_are_counted_without_their_names(words: Words, rlu: Command) -> None:
    said = rlu(*words, "--redact").out
    assert "skipped 1 unreadable files" in said
    assert "against the truth" in said
    assert "checks:" in said
    assert "█" not in said
