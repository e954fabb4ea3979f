"""Options that cannot be, settings nobody gave, and outputs that cannot be written."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
import torch
from cli_world import Command, Refused, Words, World, write_pair

from rlu_cli.commands.attack import attack
from rlu_cli.settings.specs import ATTACK
from rlu_cli.settings.table import SETTINGS, taken_by

# Files have tests of their own; a history is read only where a scheme remembers one.
_FILES = ("output", "history")
_OTHER_CODE = {"truth": ("E201", 3), "layer": ("E210", 3)}
# By name, the option; a switch takes no text.
TEXT_OPTIONS = {
    name: spec.option or f"--{name.replace('_', '-')}"
    for name, spec in taken_by(ATTACK).items()
    if "/" not in spec.option and name not in _FILES
} | {"format": "--format"}


@pytest.mark.parametrize("name", TEXT_OPTIONS)
def test_every_option_refuses_what_it_does_not_know(
    name: str, told: list[str], rlu: Command, work: Path
) -> None:
    """A digit to str.isdigit, and nothing that any option takes."""
    result = rlu(*told, TEXT_OPTIONS[name], "²")
    assert result.err.startswith("error[E")
    code, status = result.err[6:10], result.status
    assert (code, status) == _OTHER_CODE.get(name, (code, {"1": 2, "2": 3}[code[1]]))
    assert "\n  next:  " in result.err
    assert result.out == ""
    assert not list(work.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--lr", v) for v in ("0", "-0.1", "nan", "inf", "1e400", "", "0,1")),
        *(("--epochs", v) for v in ("0", "-1", "1.5", "1e3", "10001", "9" * 5000, "--5", "")),
        *(("--batch-size", v) for v in ("0", "-8", "8.0", "many")),
        *(("--samples", v) for v in ("0", "x")),
        *(("--steps-per-epoch", v) for v in ("0", "10001")),
        *(("--mode", v) for v in ("Train", "eval ", "both")),
        *(("--model", v) for v in ("lenet", "LeNet5", "net.py", "timm:", "")),
        *(("--model-arg", v) for v in ("act", "act=", "=relu", "act=gelu", "width=2", "a b=1")),
        *(("--aux-per-class", v) for v in ("0", "1", "-3")),
        *(("--normalize", v) for v in ("0.5", "0.5/0", "0.5,0.5/0.5", "0.5/0.5/0.5", "a/b", "")),
        *(("--normalize", v) for v in ("0.5/-1", "0.5,0.5/0.5,0.5")),
        *(("--image-size", v) for v in ("0", "5000", "32x32")),
        *(("--draws", v) for v in ("0", "-1", "1e4")),
        *(("--search", v) for v in ("CHECKED", "all")),
        *(("--iterations", v) for v in ("-1", "2.5")),
        *(("--seed", v) for v in ("-1", "one", str(2**63))),
        *(("--device", v) for v in ("gpu", "cuda:x", "cuda:-1", "cpu:0", "tpu")),
        *(("--max-bytes", v) for v in ("0", "1GB")),
        *(("--format", v) for v in ("xml", "JSON", "")),
    ],
)
def test_values_that_cannot_be(option: str, value: str, told: list[str], refused: Refused) -> None:
    error = refused("E101", 2, [*told, option, value])
    assert "invalid literal" not in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_asked_for_and_absent(device: str, told: list[str], refused: Refused) -> None:
    refused("E103", 2, [*told, "--device", device], device, "--device cpu", "rlu doctor")


def test_a_device_past_the_last_one(told: list[str], refused: Refused) -> None:
    refused("E103", 2, [*told, "--device", "cuda:99"], "cuda:99")


@pytest.mark.parametrize("words", [[], ["--global", "g.pt"], ["--frobnicate"]])
def test_a_command_line_that_is_none(words: Words, rlu: Command) -> None:
    result = rlu("attack", *words)
    assert (result.status, result.out) == (2, "")
    assert "Traceback" not in result.err


def test_an_unknown_command(rlu: Command) -> None:
    result = rlu("atack")
    assert (result.status, result.out) == (2, "")


# Settings nobody gave


def test_all_that_is_missing_is_one_error(untold: list[str], refused: Refused) -> None:
    refused("E102", 2, untold, "lr", "--lr ETA", "epochs", "--epochs M", "RLU_NAME", "rlu.toml")


def test_full_passes_need_a_batch_size_too(untold: list[str], refused: Refused) -> None:
    words = [*untold, "--samples", "20"]
    refused("E102", 2, words, "--lr ETA", "--epochs M", "--batch-size B")


@pytest.mark.parametrize(("given", "missing"), [("--lr", "epochs"), ("--epochs", "lr")])
def test_only_what_is_missing_is_listed(
    given: str, missing: str, untold: Words, refused: Refused
) -> None:
    error = refused("E102", 2, [*untold, given, "1"])
    assert error.splitlines()[0] == f"error[E102]: missing setting: {missing}"


def test_batchnorm_counters_hint_at_the_steps(
    world: World, tmp_path: Path, refused: Refused
) -> None:
    before, after = world.states
    counted = [
        {**state, "bn.num_batches_tracked": torch.tensor(passes)}
        for state, passes in ((before, 100), (after, 107))
    ]
    pair = write_pair(tmp_path / "pair", *counted)
    words = ["attack", *pair, "--aux", str(world.aux), "--samples", "20"]
    refused("E102", 2, words, "--batch-size B", "BatchNorm counters show 7 steps")


def test_settings_that_contradict_each_other(told: list[str], refused: Refused) -> None:
    words = [*told, "--samples", "20", "--steps-per-epoch", "9"]
    refused("E106", 2, words, "3 steps", "9", "--samples or --steps-per-epoch")


def test_more_steps_than_can_be_followed(told: list[str], refused: Refused) -> None:
    words = [*told, "--epochs", "5000", "--steps-per-epoch", "5000"]
    refused("E101", 2, words, "25,000,000", "--epochs")


def test_without_a_batch_size_no_count_is_invented(
    untold: list[str], world: World, rlu: Command
) -> None:
    given = ["--lr", "0.01", "--epochs", "2", "--model-arg", "act=relu", "--normalize", "half"]
    report = rlu(*untold, *given, "--format", "json").report
    rows = report["result"]["counts"]
    assert report["result"]["total"] is None
    assert [row["count"] for row in rows] == [None] * 10
    shares = [row["share"] for row in rows]
    assert sum(shares) == pytest.approx(1.0)
    expected = [count / sum(world.counts) for count in world.counts]
    assert shares == pytest.approx(expected, abs=0.02)
    assert "shares only" in " ".join(report["assumptions"])
    assert "--batch-size" in rlu(*untold, *given).out


# Output


def test_an_output_that_exists_is_kept(
    told: list[str], work: Path, refused: Refused, rlu: Command
) -> None:
    kept = work / "report.json"
    kept.write_text("mine")
    refused("E106", 2, [*told, "--output", "report.json"], "report.json", "--force")
    assert [p.name for p in work.iterdir()] == ["report.json"]
    assert kept.read_text() == "mine"
    assert rlu(*told, "--output", "report.json", "--force").status == 0
    assert "recovered by pooled" in kept.read_text()


def test_a_dangling_link_is_not_written_through(
    told: list[str], work: Path, refused: Refused
) -> None:
    (work / "report.json").symlink_to(work / "elsewhere.json")
    refused("E106", 2, [*told, "--output", "report.json"])
    assert not (work / "elsewhere.json").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere/r.json", "does not exist"), (".", "folder"), ("r" * 300, "too long")],
)
def test_an_output_that_cannot_be(
    name: str, why: str, told: list[str], work: Path, refused: Refused
) -> None:
    refused("E201", 3, [*told, "--force", "--output", name], why, "--output")
    assert not list(work.iterdir())


def test_a_device_is_never_replaced(told: list[str], refused: Refused) -> None:
    refused("E201", 3, [*told, "--force", "--output", os.devnull], os.devnull, "not a file")
    assert not Path(os.devnull).is_file()


def test_a_full_disk_leaves_nothing(
    told: list[str], work: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    refused("E201", 3, [*told, "--output", "report.json"], "report.json", "No space left")
    assert not list(work.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_only_the_owner_can_read_a_report(told: list[str], work: Path, rlu: Command) -> None:
    result = rlu(*told, "--output", "report.json", "--format", "json")
    assert (result.status, result.out) == (0, "")
    assert [p.name for p in work.iterdir()] == ["report.json"]
    assert (work / "report.json").stat().st_mode & 0o777 == 0o600


def test_every_setting_can_be_given_somewhere() -> None:
    options = {name.rstrip("_") for name in inspect.signature(attack).parameters}
    assert set(taken_by(ATTACK)) <= options
    unreachable = {name for name, spec in SETTINGS.items() if not spec.commands}
    assert all("rlu.toml" in SETTINGS[name].give for name in unreachable)
