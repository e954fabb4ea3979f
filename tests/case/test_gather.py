"""Every setting of a case, from all the places where one may stand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sample_case import counted_pair

from rlu_cli.case.batchnorm_counters import INFERRED
from rlu_cli.case.gather import gather_settings
from rlu_cli.checkpoints import CheckpointPair, open_checkpoint
from rlu_cli.errors import InputError, UsageError
from rlu_cli.settings.layers import flag_layer
from rlu_cli.settings.specs import CALIBRATE

NOTHING = flag_layer({})


@pytest.fixture
def run(tmp_path: Path, work: Path) -> Path:
    """A round of a run, nothing in it but its record."""
    folder = tmp_path / "run" / "r000"
    folder.mkdir(parents=True)
    (folder / "round.json").write_text("{}", encoding="utf-8")
    return folder


def _save(path: Path, rate: float | None) -> Path:
    """A layer, and beside it an optimiser that knows its rate."""
    content: dict[str, object] = {
        "model": {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}
    }
    if rate is not None:
        content["optimizer"] = {"state": {}, "param_groups": [{"lr": rate, "params": [0]}]}
    torch.save(content, path)
    return path


def test_each_place_is_overruled_by_the_one_before(
    run: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = _save(run / "global.pt", None), _save(run / "c1.pt", None)
    flags = NOTHING

    def rate() -> tuple[float, str]:
        pair = CheckpointPair(open_checkpoint(paths[0]), open_checkpoint(paths[1]))
        setting = gather_settings(flags, paths, pair)["lr"]
        return setting.value, setting.source

    (work.parent / "pyproject.toml").write_text("[tool.rlu]\nlr = 8")
    assert rate() == (8, f"{work.parent / 'pyproject.toml'} [tool.rlu]")
    (work / "rlu.toml").write_text("lr = 7")
    assert rate() == (7, str(work / "rlu.toml"))
    _save(run / "global.pt", 6)
    assert rate() == (6, "global.pt: optimizer.param_groups[0].lr")
    _save(run / "c1.pt", 5)
    assert rate() == (5, "c1.pt: optimizer.param_groups[0].lr")
    (run.parent / "rlu.toml").write_text("lr = 4")
    assert rate() == (4, str(run.parent / "rlu.toml"))
    (run / "rlu.toml").write_text("lr = 3")
    assert rate() == (3, str(run / "rlu.toml"))
    monkeypatch.setenv("RLU_LR", "2")
    assert rate() == (2, "RLU_LR")
    flags = flag_layer({"lr": 1})
    assert rate() == (1, "flag")


def test_settings_beside_the_clients_file_go_before_those_beside_the_global_one(
    tmp_path: Path, work: Path
) -> None:
    for name, seed in (("server", 1), ("client", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rlu.toml").write_text(f"seed = {seed}\n{name} = 1".replace(name, "lr"))
    paths = tmp_path / "server" / "g.pt", tmp_path / "client" / "c.pt"
    assert gather_settings(NOTHING, paths, None)["seed"].value == 2


def test_nothing_given_leaves_the_defaults(work: Path) -> None:
    found = gather_settings(NOTHING, [], None)
    assert {setting.source for setting in found.values()} == {"default"}


def test_a_command_has_its_own_defaults(work: Path) -> None:
    assert gather_settings(NOTHING, [], None)["virtual_clients"].value == 0
    assert gather_settings(NOTHING, [], None, CALIBRATE)["virtual_clients"].value == 16


def test_epochs_come_from_the_counters_where_nobody_tells_them(work: Path) -> None:
    found = gather_settings(NOTHING, [], counted_pair((0, 4)))["epochs"]
    assert found.value == 4
    assert found.source.startswith(INFERRED)


def test_epochs_that_are_told_anywhere_are_taken(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLU_EPOCHS", "2")
    assert gather_settings(NOTHING, [], counted_pair((0, 4)))["epochs"].source == "RLU_EPOCHS"


def test_what_a_checkpoint_tells_that_is_no_setting_is_passed_over(
    tmp_path: Path, work: Path
) -> None:
    content = {"model": {"fc.weight": torch.ones(2, 2)}, "num_classes": 2, "learning_rate": 0.5}
    torch.save(content, tmp_path / "c.pt")
    opened = open_checkpoint(tmp_path / "c.pt")
    assert "num_classes" in opened.facts
    found = gather_settings(NOTHING, [], CheckpointPair(opened, opened))
    assert "num_classes" not in found
    assert found["lr"].value == 0.5


@pytest.mark.parametrize(
    ("text", "code"), [("lrr = 1", "E101"), ("epochs = 0", "E101"), ("output = 'x'", "E105")]
)
def test_a_file_beside_may_not_say_just_anything(text: str, code: str, run: Path) -> None:
    (run / "rlu.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        gather_settings(NOTHING, [run / "c1.pt"], None)
    assert caught.value.code == code


def test_a_file_that_is_no_toml_ends_it(run: Path) -> None:
    (run / "rlu.toml").write_text("lr = ")
    with pytest.raises(InputError) as caught:
        gather_settings(NOTHING, [run / "c1.pt"], None)
    assert caught.value.code == "E201"
