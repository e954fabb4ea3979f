"""`rlu reproduce` through the command line: every target on drawn digits, and every way to fail."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rlu_cli.audit.attack import attack
from rlu_cli.cli import app
from rlu_cli.errors import InputError, RluError, UsageError
from rlu_cli.experiments import TARGETS


def _reproduce(*words: object) -> list[Path]:
    """Run the command; the paths it printed."""
    result = CliRunner().invoke(app, ["reproduce", *map(str, words)])
    if isinstance(result.exception, RluError):
        raise result.exception
    assert result.exit_code == 0, result.exception
    return [Path(line) for line in result.stdout.splitlines()]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_every_target_on_drawn_digits(tmp_path: Path) -> None:
    paths = _reproduce("all", "--scale", "smoke", "--out", tmp_path, "-q", "--device", "cpu")
    assert {path.stem for path in paths if path.suffix == ".md"} == set(TARGETS)
    for path in paths:
        assert path.stat().st_size > 0
    pictures = {path.stem for path in paths if path.suffix == ".png"}
    assert pictures == {name for name in TARGETS if name.startswith("figure")}
    for name in ("table2", "table3", "table4", "table5", "table6", "figure1", "figure2"):
        text = (tmp_path / f"{name}.md").read_text("utf-8")
        assert "drawn digits (stand-in for" in text
        with (tmp_path / f"{name}.csv").open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        assert {line["client"] for line in lines} == {"0"}
        assert all(0 <= float(line["iacc"]) <= 1 for line in lines if line["iacc"])


def test_a_killed_run_goes_on_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked: list[int] = []

    def counted(*args: object, **options: object) -> object:
        attacked.append(len(attacked))
        if len(attacked) == 2:
            raise KeyboardInterrupt
        return attack(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("rlu_cli.experiments.measure.attack", counted)
    words = ("table2", "--scale", "smoke", "--clients", 2, "--only", "SVHN-relu-m1", "-q")
    command = ["reproduce", *map(str, words), "--out", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code != 0
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 1
    markdown, _ = _reproduce(*words, "--out", tmp_path)
    assert len(attacked) == 3  # client 0 once, client 1 twice
    first = markdown.read_text("utf-8")
    _reproduce(*words, "--out", tmp_path)
    assert len(attacked) == 3
    assert markdown.read_text("utf-8") == first


def test_checkpoints_may_be_deleted_once_measured(tmp_path: Path) -> None:
    import shutil

    words = ("table2", "--scale", "smoke", "--only", "SVHN-relu-m1", "-q", "--out", tmp_path)
    markdown, _ = _reproduce(*words)
    first = markdown.read_text("utf-8")
    shutil.rmtree(tmp_path / "runs")
    _reproduce(*words)
    assert markdown.read_text("utf-8") == first
    assert not list((tmp_path / "runs").rglob("c*.pt"))


def test_the_methods_asked_for_are_run_and_rlu_with_them(tmp_path: Path) -> None:
    words = ("--scale", "smoke", "--only", "SVHN-relu-m1", "-q", "--methods", "irlg")
    _, table = _reproduce("table2", *words, "--out", tmp_path)
    with table.open(newline="") as stream:
        assert [line["method"] for line in csv.DictReader(stream)] == ["rlu", "irlg"]


def test_an_unknown_target_lists_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as wrong:
        _reproduce("table1", "--out", tmp_path)
    assert wrong.value.code == "E101"
    assert all(name in wrong.value.hint for name in TARGETS)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("table2", "--scale", "huge"), "E101"),
        (("table2", "--scale", "small"), "E102"),
        (("table2", "--scale", "smoke", "--methods", "irlg,magic"), "E101"),
        (("table2", "--scale", "smoke", "--device", "abacus"), "E101"),
    ],
)
def test_wrong_options(tmp_path: Path, words: tuple[str, ...], code: str) -> None:
    with pytest.raises(UsageError) as wrong:
        _reproduce(*words, "--out", tmp_path)
    assert wrong.value.code == code


def test_missing_images_are_said_row_by_row(tmp_path: Path) -> None:
    """Nothing at all is an error that names what is wanted."""
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError) as missing:
        _reproduce("table2", "table3", "--data", tmp_path / "data", "--out", tmp_path)
    assert missing.value.code == "E201"
    assert "no SVHN nor MNIST32" in str(missing.value)
    with pytest.raises(InputError) as missing:
        _reproduce("table2", "--data", tmp_path / "nowhere", "--out", tmp_path)
    assert missing.value.code == "E201"


def test_a_pattern_that_fits_nothing_lists_the_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError) as missing:
        _reproduce("table3", "--scale", "smoke", "--only", "SVNH*", "--out", tmp_path)
    assert "CIFAR10-alpha0.05" in str(missing.value)


def test_scales_do_not_share_a_folder(tmp_path: Path) -> None:
    """The server's images differ: what is there is refused with the way out that exists here."""
    words = ("table2", "--scale", "smoke", "--only", "SVHN-relu-m1", "-q", "--out", tmp_path)
    _reproduce(*words)
    (tmp_path / "drawn-digits.npz").unlink()
    from rlu_cli.experiments.images import drawn_images

    drawn_images("SVHN", tmp_path / "drawn-digits.npz", train=61, test=20)
    with pytest.raises(UsageError) as refused:
        _reproduce(*words)
    assert refused.value.code == "E106"
    assert "--out" in refused.value.hint
