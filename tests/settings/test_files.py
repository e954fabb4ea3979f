"""Settings files: which of them are read, in what order, and whom each one speaks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from rlu_cli.errors import InputError
from rlu_cli.settings import files
from rlu_cli.settings.files import FILE_NAME
from rlu_cli.settings.layers import Layer
from rlu_cli.types import Setting


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """Where the inspected files lie."""
    folder = tmp_path / "sent"
    folder.mkdir()
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The working directory, two folders deep in a project."""
    folder = tmp_path / "project" / "inner"
    folder.mkdir(parents=True)
    return folder


def _write(folder: Path, text: str, name: str = FILE_NAME) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _values(layers: Sequence[Layer], name: str = "seed") -> list[object]:
    """What the layers say of a setting, in order."""
    return [layer.values[name].value for layer in layers if name in layer.values]


def file_layers(inspected: Sequence[Path], working: Path) -> list[Layer]:
    """All layers, those that describe the evidence first."""
    evidence, own = files.file_layers(inspected, working)
    return [*evidence, *own]


def _refusal(inspected: Sequence[Path], working: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        file_layers(inspected, working)
    return caught.value


def test_no_file_is_no_layer(sent: Path, work: Path) -> None:
    assert file_layers([sent / "c.pt"], work) == []


def test_a_file_beside_is_read_and_not_trusted(sent: Path, work: Path) -> None:
    path = _write(sent, "seed = 1")
    (layer,) = file_layers([sent / "c.pt"], work)
    assert layer.values == {"seed": Setting(1, str(path))}
    assert not layer.trusted
    assert layer.folder == sent


def test_a_file_in_the_working_directory_is_trusted(sent: Path, work: Path) -> None:
    path = _write(work, "seed = 1")
    (layer,) = file_layers([sent / "c.pt"], work)
    assert layer.values == {"seed": Setting(1, str(path))}
    assert layer.trusted
    assert layer.folder == work


def test_files_beside_come_first_then_the_runs_then_the_nearest_upwards(
    tmp_path: Path, work: Path
) -> None:
    run = tmp_path / "run"
    (run / "r000").mkdir(parents=True)
    _write(run / "r000", "{}", "round.json")
    _write(run / "r000", "seed = 1")
    _write(work.parent, "seed = 2")
    _write(run, "seed = 3")
    layers = file_layers([run / "r000" / "c.pt"], work)
    assert _values(layers) == [1, 3, 2]
    assert [layer.trusted for layer in layers] == [False, False, True]


def test_the_folder_above_is_a_run_only_with_a_record_of_the_round(
    tmp_path: Path, work: Path
) -> None:
    run = tmp_path / "run"
    (run / "r000").mkdir(parents=True)
    _write(run, "seed = 3")
    assert file_layers([run / "r000" / "c.pt"], work) == []


def test_the_file_beside_the_first_of_the_inspected_comes_first(tmp_path: Path, work: Path) -> None:
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        _write(tmp_path / name, f"seed = {number}")
    one, other = tmp_path / "a" / "c.pt", tmp_path / "b" / "g.pt"
    assert _values(file_layers([one, other], work)) == [0, 1]
    assert _values(file_layers([other, one], work)) == [1, 0]


def test_two_files_in_one_folder_read_its_settings_once(sent: Path, work: Path) -> None:
    _write(sent, "seed = 1")
    assert len(file_layers([sent / "c.pt", sent / "g.pt"], work)) == 1


def test_only_the_nearest_project_counts_and_farther_ones_are_not_even_read(
    sent: Path, work: Path
) -> None:
    _write(work, "seed = 1")
    _write(work.parent, "this is no TOML")
    assert _values(file_layers([sent / "c.pt"], work)) == [1]


def test_the_tool_table_of_a_project_counts_too(sent: Path, work: Path) -> None:
    path = _write(work.parent, "[tool.rlu]\nseed = 4\nbatch-size = 8", "pyproject.toml")
    (layer,) = file_layers([sent / "c.pt"], work)
    source = layer.values["seed"].source
    assert str(path) in source
    assert "[tool.rlu]" in source
    assert layer.values["batch_size"].value == 8
    assert layer.trusted


@pytest.mark.parametrize(
    "text", ["[project]\nname = 'x'", "tool = 3", "[tool]\nrlu = 3", "[tool.other]\nseed = 1", ""]
)
def test_a_project_without_our_table_is_passed_over(text: str, sent: Path, work: Path) -> None:
    _write(work, text, "pyproject.toml")
    _write(work.parent, "seed = 5")
    assert _values(file_layers([sent / "c.pt"], work)) == [5]


def test_our_own_file_goes_before_the_projects_in_one_folder(sent: Path, work: Path) -> None:
    _write(work, "[tool.rlu]\nseed = 1", "pyproject.toml")
    _write(work, "seed = 2")
    assert _values(file_layers([sent / "c.pt"], work)) == [2]


def test_a_project_beside_what_is_inspected_is_not_read(sent: Path, work: Path) -> None:
    _write(sent, "[tool.rlu]\nseed = 1", "pyproject.toml")
    assert file_layers([sent / "c.pt"], work) == []


@pytest.mark.parametrize("inner", ["", "below"])
def test_standing_in_the_folder_of_what_is_inspected_does_not_make_it_trusted(
    inner: str, sent: Path
) -> None:
    _write(sent, "seed = 1")
    _write(sent, "[tool.rlu]\nseed = 2", "pyproject.toml")
    (sent / "below").mkdir()
    (layer,) = file_layers([sent / "c.pt"], sent / inner)
    assert not layer.trusted
    assert layer.values["seed"].value == 1


def test_standing_in_the_run_does_not_make_it_trusted(tmp_path: Path) -> None:
    round_folder = tmp_path / "run" / "r000"
    round_folder.mkdir(parents=True)
    _write(round_folder, "{}", "round.json")
    _write(round_folder.parent, "seed = 1")
    layers = file_layers([round_folder / "c.pt"], round_folder.parent)
    assert [layer.trusted for layer in layers] == [False]


def test_a_link_to_the_inspected_folder_is_that_folder(
    sent: Path, tmp_path: Path, work: Path
) -> None:
    _write(sent, "seed = 1")
    (tmp_path / "link").symlink_to(sent, target_is_directory=True)
    (layer,) = file_layers([tmp_path / "link" / "c.pt"], sent)
    assert not layer.trusted
    assert layer.folder == sent


def test_without_inspected_files_only_the_users_own_count(work: Path) -> None:
    _write(work, "seed = 1")
    layers = file_layers([], work)
    assert _values(layers) == [1]
    assert layers[0].trusted


def test_keys_may_be_written_with_dashes(sent: Path, work: Path) -> None:
    _write(work, "batch-size = 8\nmodel-args = {act = 'relu'}")
    (layer,) = file_layers([sent / "c.pt"], work)
    assert set(layer.values) == {"batch_size", "model_args"}


@pytest.mark.parametrize(
    "content",
    [
        b"lr = ",
        b"lr = 1\nlr = 2",
        b"[" * 5000,
        b"\xff\xfe",
        b"seed = 1 # " + b"x" * 2**20,
    ],
    ids=["no value", "twice", "nested", "no text", "too large"],
)
@pytest.mark.parametrize("place", ["sent", "work"])
def test_a_file_that_cannot_be_read_is_named(
    place: str, content: bytes, sent: Path, work: Path
) -> None:
    path = (sent if place == "sent" else work) / FILE_NAME
    path.write_bytes(content)
    error = _refusal([sent / "c.pt"], work)
    assert error.code == "E201"
    assert str(path) in error.message
    assert error.why


def test_a_folder_of_that_name_is_no_file(sent: Path, work: Path) -> None:
    (sent / FILE_NAME).mkdir()
    assert file_layers([sent / "c.pt"], work) == []


def test_a_file_of_a_megabyte_is_still_read(sent: Path, work: Path) -> None:
    text = "seed = 1 #"
    _write(sent, text + "x" * (2**20 - len(text)))
    assert _values(file_layers([sent / "c.pt"], work)) == [1]
