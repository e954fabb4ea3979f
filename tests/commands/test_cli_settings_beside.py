"""A settings file beside what is inspected is not the user: what it may not say, and who may."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from cli_world import Command, Refused, Words, World


@pytest.fixture
def sent(world: World, tmp_path: Path) -> Path:
    """What somebody sent: a pair of checkpoints, and whatever lies beside them."""
    folder = tmp_path / "sent"
    folder.mkdir()
    shutil.copy(world.before, folder / "g.pt")
    shutil.copy(world.after, folder / "c.pt")
    marker = repr(str(tmp_path / "ran"))
    (folder / "evil.py").write_text(
        f"import os\nos.makedirs({marker}, exist_ok=True)\n"
        "from rlu_cli.models.lenet import lenet5\n"
        "def Net(num_classes=10):\n    return lenet5(num_classes=num_classes)\n"
    )
    return folder


@pytest.fixture
def words(sent: Path, world: World) -> list[str]:
    pair = ["--global", str(sent / "g.pt"), "--local", str(sent / "c.pt")]
    rates = ["--lr", "0.01", "--epochs", "2", "--batch-size", "8", "--normalize", "half"]
    return ["attack", *pair, "--aux", str(world.aux), *rates]


@pytest.fixture
def secret(tmp_path: Path, world: World) -> Path:
    """A file of the user's, outside what was sent, that would do as truth."""
    path = tmp_path / "secret.json"
    path.write_text(json.dumps(world.counts))
    return path


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    return tmp_path / "ran"


@pytest.mark.parametrize(
    "model",
    ["evil.py:Net", "{sent}/evil.py:Net", "./evil.py:Net", "evil:Net", "os:mkdir", "x.py:"],
)
def test_code_is_not_named_from_there(
    model: str,
    words: Words,
    sent: Path,
    ran: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(sent)
    (sent / "rlu.toml").write_text(f"model = {json.dumps(model.format(sent=sent))}")
    refused("E105", 2, words, "model", "rlu.toml", "run code", "--model")
    assert not ran.exists()


def test_the_same_code_named_by_the_user_runs(
    words: Words, sent: Path, ran: Path, world: World, rlu: Command
) -> None:
    (sent / "rlu.toml").write_text('model = "evil.py:Net"')
    result = rlu(*words, "--model", sent / "evil.py:Net", "--draws", 200, "--format", "json")
    assert result.counts == world.counts
    assert ran.exists()


def test_code_named_in_the_users_own_project_runs(
    words: Words, sent: Path, ran: Path, world: World, work: Path, rlu: Command
) -> None:
    (work / "rlu.toml").write_text(f"model = {json.dumps(str(sent / 'evil.py:Net'))}\ndraws = 200")
    assert rlu(*words, "--format", "json").counts == world.counts
    assert ran.exists()


@pytest.mark.parametrize("working", ["beside", "below", "run"])
def test_standing_inside_what_was_sent_changes_nothing(
    working: str,
    words: Words,
    sent: Path,
    ran: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file is the sender's also where the search upwards from the working folder meets it."""
    (sent / "rlu.toml").write_text('model = "evil:Net"')
    (sent / "below").mkdir()
    if working == "run":
        inner = sent / "r000"
        inner.mkdir()
        (inner / "round.json").write_text("{}")
        for name in ("g.pt", "c.pt"):
            shutil.move(sent / name, inner / name)
        words = [word.replace(str(sent), str(inner)) for word in words]
    monkeypatch.chdir(sent / "below" if working == "below" else sent)
    refused("E105", 2, words, "model")
    assert not ran.exists()


@pytest.mark.parametrize(
    "setting",
    [
        'method = "all"',
        'method = "emulation"',
        "virtual_clients = 10_000",
        "effort = 'thorough'",
        "draws = 100_000_000",
        "iterations = 10_000",
        "image_size = 4096",
    ],
)
def test_no_work_is_ordered_from_there(
    setting: str, words: Words, sent: Path, refused: Refused
) -> None:
    (sent / "rlu.toml").write_text(setting)
    refused(
        "E105",
        2,
        words,
        setting.split()[0],
        "rlu.toml",
        "--" + setting.split()[0].replace("_", "-"),
    )


def test_modest_work_may_be_named_there(words: Words, sent: Path, rlu: Command) -> None:
    (sent / "rlu.toml").write_text("draws = 200\niterations = 5\nimage_size = 32")
    result = rlu(*words, "--model-arg", "act=relu", "--format", "json")
    assert result.report["settings"]["draws"]["value"] == 200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_as_truth_is_not_waited_for(words: Words, sent: Path, refused: Refused) -> None:
    os.mkfifo(sent / "fifo")
    (sent / "rlu.toml").write_text('truth = "fifo"')
    refused("E201", 3, words, "fifo", "regular file")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device on this system")
def test_a_device_as_truth_is_not_read(words: Words, refused: Refused) -> None:
    refused("E201", 3, [*words, "--truth", "/dev/zero"], "/dev/zero", "regular file")


@pytest.mark.parametrize(
    "setting",
    ['output = "report.json"', 'output = "/tmp/report.json"', "max_bytes = 1_000_000_000_000"],
)
def test_neither_outputs_nor_limits(setting: str, words: Words, sent: Path, rlu: Command) -> None:
    before = sorted(sent.iterdir())
    (sent / "rlu.toml").write_text(setting)
    result = rlu(*words)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("error[E105]: refused " + setting.split()[0])
    assert sorted(sent.iterdir()) == sorted([*before, sent / "rlu.toml"])


def test_limits_and_outputs_in_the_users_own_project(
    words: Words, work: Path, rlu: Command, refused: Refused
) -> None:
    (work / "rlu.toml").write_text('output = "report.json"\nmax_bytes = 1_000_000')
    result = rlu(*words)
    assert (result.status, result.out) == (0, "")
    assert "recovered by pooled" in (work / "report.json").read_text("utf-8")


@pytest.mark.parametrize("path", ["../secret.json", "{secret}", "sub/../../secret.json", "link"])
def test_no_path_outside(
    path: str, words: Words, sent: Path, secret: Path, refused: Refused
) -> None:
    (sent / "sub").mkdir()
    (sent / "link").symlink_to(secret)
    (sent / "rlu.toml").write_text(f"truth = {json.dumps(path.format(secret=secret))}")
    refused("E105", 2, words, "truth", "outside", "--truth")


def test_no_path_through_a_folder_that_leads_outside(
    words: Words, sent: Path, secret: Path, refused: Refused
) -> None:
    (sent / "folder").symlink_to(secret.parent, target_is_directory=True)
    (sent / "rlu.toml").write_text('truth = "folder/secret.json"')
    refused("E105", 2, words, "truth", "outside")


def test_the_same_path_named_by_the_user_is_read(
    words: Words, sent: Path, secret: Path, rlu: Command
) -> None:
    (sent / "rlu.toml").write_text('truth = "../secret.json"')
    report = rlu(*words, "--truth", secret, "--format", "json").report
    assert report["metrics"]["iacc"] == 1.0


def test_a_path_inside_is_read(words: Words, sent: Path, secret: Path, rlu: Command) -> None:
    shutil.copy(secret, sent / "truth.json")
    (sent / "rlu.toml").write_text('truth = "truth.json"\nseed = 4')
    report = rlu(*words, "--format", "json").report
    assert report["metrics"]["iacc"] == 1.0
    assert report["settings"]["seed"] == {"value": 4, "source": str(sent / "rlu.toml")}


@pytest.mark.parametrize(
    ("content", "code", "status"),
    [
        ("lr = ", "E201", 3),
        (f"seed = 1 # {'x' * 2**20}", "E201", 3),
        ("[" * 5000, "E201", 3),
        ("\udcff", "E201", 3),
        ("scale = 3", "E101", 2),
        ('"\\u001b[31m\\u202e" = 3', "E101", 2),
        ('search = "\\u001b[31m\\u202e"', "E101", 2),
        ('device = "\\u001b[31m"', "E101", 2),
        ('model = "\\u001b]0;\\u0007"', "E101", 2),
        ('layer = "\\u001b[31m"', "E210", 3),
        ('aux_split = "\\u001b[31m"', "E101", 2),
        ('classes = ["\\u001b[31m"]', "E221", 3),
        ("seed = 'one'", "E101", 2),
        ("seed = -1", "E101", 2),
        ("draws = 1e9", "E101", 2),
        ("mode = {}", "E101", 2),
    ],
)
def test_what_cannot_be_is_refused_and_shown_safely(
    content: str, code: str, status: int, words: Words, sent: Path, refused: Refused
) -> None:
    (sent / "rlu.toml").write_bytes(content.encode("utf-8", "surrogateescape"))
    error = refused(code, status, words)
    assert "\u202e" not in error
    assert "\x07" not in error


def test_a_project_file_beside_is_not_read(
    words: Words, sent: Path, ran: Path, rlu: Command
) -> None:
    (sent / "pyproject.toml").write_text('[tool.rlu]\nmodel = "evil.py:Net"\nseed = 9')
    settings = rlu(*words, "--format", "json").report["settings"]
    assert settings["seed"]["value"] == 0
    assert not ran.exists()


def test_a_settings_file_that_is_no_file(words: Words, sent: Path, rlu: Command) -> None:
    (sent / "rlu.toml").mkdir()
    assert rlu(*words).status == 0
