"""Whose word counts, for the same setting given in several places."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from cli_world import Command, Refused, Words, World


class Places:
    """A run of which every place a setting can be said in can be written, or not."""

    def __init__(self, world: World, root: Path) -> None:
        self.run, self.cwd = root / "run", root / "project" / "inner"
        self.beside = self.run / "r000"
        self.cwd.mkdir(parents=True)
        shutil.copytree(world.run, self.run)
        (self.run / "rlu.toml").unlink()
        for name in ("c1.truth.json",):
            (self.beside / name).unlink()
        self._files = (self.beside / "global.pt", self.beside / "c1.pt")
        self.aux = self.run / "aux"

    @property
    def words(self) -> list[str]:
        before, after = map(str, self._files)
        return ["attack", "--global", before, "--local", after, "--aux", str(self.aux)]

    def checkpoint(self, seed_of: str, lr: float) -> None:
        """Wrap a checkpoint as trainers do, with an optimiser that knows its rate."""
        file = self._files[0 if seed_of == "global" else 1]
        state = torch.load(file, weights_only=True)
        optimiser = {"state": {}, "param_groups": [{"lr": lr, "params": [0]}]}
        torch.save({"model": state, "optimizer": optimiser}, file)


@pytest.fixture
def places(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places(world, tmp_path)
    monkeypatch.chdir(made.cwd)
    return made


def _found(places: Places, rlu: Command, *more: str) -> tuple[object, str]:
    rest = ["--epochs", "2", "--model-arg", "act=relu", "--normalize", "half", "--draws", "50"]
    setting = rlu(*places.words, *rest, *more, "--format", "json").report["settings"]["lr"]
    return setting["value"], setting["source"]


def test_each_place_is_overruled_by_the_one_before(
    places: Places, rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = places.cwd.parent / "pyproject.toml"
    outer.write_text("[tool.rlu]\nlr = 0.08")
    assert _found(places, rlu) == (0.08, f"{outer} [tool.rlu]")
    (places.cwd / "rlu.toml").write_text("lr = 0.07")
    assert _found(places, rlu) == (0.07, str(places.cwd / "rlu.toml"))
    places.checkpoint("global", 0.06)
    assert _found(places, rlu) == (0.06, "global.pt: optimizer.param_groups[0].lr")
    places.checkpoint("local", 0.05)
    assert _found(places, rlu) == (0.05, "c1.pt: optimizer.param_groups[0].lr")
    (places.run / "rlu.toml").write_text("lr = 0.04")
    assert _found(places, rlu) == (0.04, str(places.run / "rlu.toml"))
    (places.beside / "rlu.toml").write_text("lr = 0.03")
    assert _found(places, rlu) == (0.03, str(places.beside / "rlu.toml"))
    monkeypatch.setenv("RLU_LR", "0.02")
    assert _found(places, rlu) == (0.02, "RLU_LR")
    assert _found(places, rlu, "--lr", "0.01") == (0.01, "flag")


def test_files_that_disagree_are_shown(places: Places, rlu: Command) -> None:
    """The run folder's rate is used, whatever the working directory says of it."""
    inner, own = places.cwd / "rlu.toml", places.run / "rlu.toml"
    inner.write_text("lr = 0.001\nepochs = 2")
    own.write_text("lr = 0.01\nepochs = 2")
    words = [*places.words, "--draws", "50", "--model-arg", "act=relu", "--normalize", "half"]
    report = rlu(*words, "--format", "json").report
    line = f"contradiction in lr: 0.01 is used, from {own}; {inner} has 0.001"
    assert [one for one in report["assumptions"] if "contradiction" in one] == [line]
    hidden = rlu(*words, "--redact", "--format", "json").report["assumptions"]
    assert "contradiction in lr" in hidden
    assert not any(str(inner) in one for one in hidden)
    assert f"but {inner} has 0.001" in rlu(*words, "--show-settings").out


def test_defaults_come_last(places: Places, rlu: Command) -> None:
    report = rlu(*places.words, "--lr", 0.01, "--epochs", 2, "--format", "json").report
    settings = report["settings"]
    for name in ("seed", "search", "draws", "device"):
        assert settings[name]["source"] == "default"
    assert settings["model"] == {"value": "lenet5", "source": "keys and shapes"}
    assert settings["model_args"]["source"] == "fit to the files"
    assert settings["normalize"] == {"value": "half", "source": "fit to the files"}
    assert settings["mode"] == {"value": "eval", "source": "the model's layers"}


def test_an_empty_variable_says_nothing(
    told: Words, rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLU_SEED", "")
    report = rlu(*told, "--format", "json").report
    assert report["settings"]["seed"] == {"value": 0, "source": "default"}


def test_every_setting_can_come_from_a_variable(
    untold: Words, rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {
        "LR": "0.01",
        "EPOCHS": "2",
        "BATCH_SIZE": "8",
        "MODEL": "lenet5",
        "MODEL_ARGS": "act=relu;size=32",
        "NORMALIZE": "half",
        "DRAWS": "60",
        "SEED": "7",
        "MODE": "eval",
        "SEARCH": "none",
        "LAYER": "fc3",
        "AUX_PER_CLASS": "3",
        "MAX_BYTES": "1000000",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"RLU_{name}", value)
    settings = rlu(*untold, "--format", "json").report["settings"]
    for name in given:
        assert settings[name.lower()]["source"] == f"RLU_{name}"
    assert settings["model_args"]["value"] == {"act": "relu", "size": 32}
    assert settings["seed"]["value"] == 7


def test_a_wrong_variable_is_named(
    untold: Words, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLU_EPOCHS", "two")
    refused("E101", 2, [*untold, "--lr", "0.01"], "epochs", "two", "RLU_EPOCHS")


def test_keys_may_be_written_with_dashes(untold: Words, work: Path, rlu: Command) -> None:
    lines = ("lr = 0.01", "epochs = 2", "batch-size = 8", 'model-args = {act = "relu"}')
    (work / "rlu.toml").write_text("\n".join([*lines, 'normalize = "half"', "draws = 50"]))
    report = rlu(*untold, "--format", "json").report
    assert report["settings"]["batch_size"]["value"] == 8
    assert report["settings"]["model_args"]["value"] == {"act": "relu"}


def test_a_project_without_our_table_is_passed_over(told: Words, work: Path, rlu: Command) -> None:
    (work.parent / "rlu.toml").write_text("seed = 5")
    (work / "pyproject.toml").write_text("[tool.other]\nx = 1\n[project]\nname = 'x'")
    report = rlu(*told, "--format", "json").report
    assert report["settings"]["seed"]["value"] == 5
    (work / "pyproject.toml").write_text("tool = 3")
    assert rlu(*told).status == 0


def test_only_the_nearest_project_counts(told: Words, work: Path, rlu: Command) -> None:
    (work.parent / "rlu.toml").write_text("this is no TOML")
    (work / "rlu.toml").write_text("draws = 50")
    settings = rlu(*told[: told.index("--draws")], "--format", "json").report["settings"]
    assert settings["draws"]["value"] == 50


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        ("lr = ", "E201", 3),
        ("lr = 0.1\nlr = 0.2", "E201", 3),
        ("learning_rate = 0.1", "E101", 2),
        ("[attack]\nlr = 0.1", "E101", 2),
        ("lr = true", "E101", 2),
        ("lr = [0.1]", "E101", 2),
        (f"lr = 1{'0' * 400}", "E101", 2),
        ("epochs = 2.0", "E101", 2),
        ("model_args = 5", "E101", 2),
        ("model_args = [1]", "E101", 2),
        ("model = 5", "E101", 2),
        ("classes = 5", "E101", 2),
        ("classes = ['a', 'a']", "E101", 2),
        ("search = ['checked']", "E101", 2),
        ("truth = 5", "E101", 2),
        ("normalize = 3", "E101", 2),
    ],
)
def test_a_settings_file_that_cannot_be(
    text: str, code: str, status: int, untold: Words, work: Path, refused: Refused
) -> None:
    (work / "rlu.toml").write_text(text)
    words = untold if "lr" in text else [*untold, "--lr", "0.01"]
    refused(code, status, words if "epochs" in text else [*words, "--epochs", "2"], "rlu.toml")


def test_a_setting_misspelt_is_guessed(told: Words, work: Path, refused: Refused) -> None:
    (work / "rlu.toml").write_text("batchsize = 8")
    refused("E101", 2, told, "batchsize", "did you mean batch_size?", "rlu.toml")


# --show-settings


def test_settings_are_shown_with_their_sources(
    told: Words, work: Path, rlu: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "rlu.toml").write_text("seed = 5")
    monkeypatch.setenv("RLU_MODE", "eval")
    result = rlu(*told, "--show-settings")
    assert (result.status, result.err) == (0, "")
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines()]
    shown = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert shown["lr"] == ["0.01", "flag"]
    assert shown["mode"] == ["eval", "RLU_MODE"]
    assert shown["seed"] == ["5", str(work / "rlu.toml")]
    assert shown["search"] == ["checked", "default"]
    assert shown["samples"][1].startswith("not given: --samples")


def test_shown_settings_end_in_what_is_missing(untold: Words, rlu: Command) -> None:
    result = rlu(*untold, "--show-settings", "--seed", 3)
    assert result.status == 2
    assert "seed" in result.out
    assert result.err.startswith("error[E102]: missing settings: lr, epochs")
    assert "\x1b" not in result.out
