"""The report as JSON and as a table: keys that stay, hashes, and text that no name can upset."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_world import DRAWS, Command, Outcome, Words, World, write_pair


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_keys_that_stay(told: Words, world: World, work: Path, rlu: Command) -> None:
    (work / "truth.json").write_text(json.dumps(world.counts))
    report = rlu(*told, "--truth", "truth.json", "--format", "json").report
    assert report["schema_version"]
    for row in report["result"]["counts"]:
        assert set(row) >= {"index", "class", "count", "share"}
    assert [row["index"] for row in report["result"]["counts"]] == list(range(10))
    assert [row["class"] for row in report["result"]["counts"]] == [str(n) for n in range(10)]
    assert report["result"]["total"] == sum(world.counts)
    assert isinstance(report["result"]["status"], str)
    assert set(report["metrics"]) >= {"cacc", "iacc", "exact", "floor_cacc", "floor_iacc"}
    for setting in report["settings"].values():
        assert set(setting) == {"value", "source"}
    for given in report["inputs"].values():
        assert set(given) == {"path", "sha256"}
    assert report["warnings"] == []
    assert report["seed"] == 0
    figures = {"bias_sum", "weight_column_sum", "embedding_cosine"}
    figures |= {"embedding_norm_ratio", "accuracy_before", "batchnorm_steps"}
    assert set(report["diagnostics"]) >= figures | {"weights", "virtual_trials", "concentration"}
    assert sum(report["diagnostics"]["weights"].values()) == pytest.approx(1)
    plain = rlu(*told, "--method", "rlu", "--format", "json").report["diagnostics"]
    assert set(plain) >= figures | {"residual", "condition", "confidence_sum_before"}
    assert plain["confidence_sum_before"] == pytest.approx(1, abs=0.02)


def test_the_first_method_stands_at_the_top_too(told: Words, rlu: Command) -> None:
    report = rlu(*told, "--format", "json").report
    first = report["methods"][0]
    assert set(first) >= {"method", "result", "metrics", "diagnostics", "warnings"}
    assert first["method"] == "pooled"
    assert first["result"] == report["result"]
    assert first["metrics"] == report["metrics"]


def test_counts_are_whole_and_sum_to_the_total(told: Words, rlu: Command) -> None:
    result = rlu(*told, "--batch-size", 37, "--format", "json")
    assert all(isinstance(count, int) and count >= 0 for count in result.counts)
    counts = [count for count in result.counts if count is not None]
    assert len(counts) == len(result.counts)
    assert sum(counts) == result.report["result"]["total"] == 74
    assert sum(row["share"] for row in result.report["result"]["counts"]) == pytest.approx(1)


def test_hashes_of_the_inputs(told: Words, world: World, work: Path, rlu: Command) -> None:
    (work / "truth.json").write_text(json.dumps(world.counts))
    inputs = rlu(*told, "--truth", "truth.json", "--format", "json").report["inputs"]
    for name, path in (
        ("global", world.before),
        ("local", world.after),
        ("truth", work / "truth.json"),
    ):
        assert inputs[name] == {"path": str(path), "sha256": _sha256(path.read_bytes())}


def test_a_folders_hash_is_over_its_paths_and_hashes(
    told: Words, world: World, rlu: Command
) -> None:
    lines = sorted(
        f"{file.relative_to(world.aux).as_posix()}\0{_sha256(file.read_bytes())}\n"
        for file in world.aux.rglob("*.png")
    )
    inputs = rlu(*told, "--format", "json").report["inputs"]
    assert inputs["aux"] == {"path": str(world.aux), "sha256": _sha256("".join(lines).encode())}


def test_renamed_images_change_the_hash_and_nothing_else(
    told: Words, world: World, tmp_path: Path, rlu: Command
) -> None:
    renamed = Path(shutil.copytree(world.aux, tmp_path / "renamed"))
    for number, file in enumerate(sorted(renamed.rglob("*.png"), reverse=True)):
        file.rename(file.with_name(f"z{number}.png"))
    first = rlu(*told, "--format", "json").report
    told[told.index("--aux") + 1] = str(renamed)
    second = rlu(*told, "--format", "json").report
    assert first["inputs"]["aux"]["sha256"] != second["inputs"]["aux"]["sha256"]
    assert first["result"] == second["result"]
    assert first["diagnostics"] == second["diagnostics"]


@pytest.mark.parametrize("method", ["auto", "rlu"])
def test_the_same_seed_gives_the_same_answer(method: str, told: Words, rlu: Command) -> None:
    words = [*told, "--method", method, "--format", "json"]
    reports = [rlu(*words, "--seed", seed).report for seed in (3, 3, 4)]
    for report in reports:
        del report["created"]
    assert reports[0] == reports[1]
    shares = [[row["share"] for row in r["result"]["counts"]] for r in reports]
    if method == "rlu":
        assert shares[0] != shares[2]
    else:  # of so short a round `pooled` is sure of the counts, whatever the seed
        assert shares[0] == shares[2]


def test_a_search_cut_short_is_left_out_of_what_is_pooled(
    told: Words, world: World, rlu: Command
) -> None:
    result = rlu(*told, "--iterations", 0, "--format", "json")
    assert result.status == 0
    assert set(result.report["diagnostics"]["weights"]) == {"bayes", "path"}
    assert result.counts == world.counts


def test_a_search_cut_short_is_reported_with_status_4(told: Words, rlu: Command) -> None:
    result = rlu(*told, "--method", "rlu", "--iterations", 0, "--format", "json")
    assert result.status == 4
    report = json.loads(result.out)
    assert report["result"]["ok"] is False
    assert report["result"]["status"].startswith("search did not converge")
    assert report["warnings"][0]["code"] == "W310"


def test_figures_that_are_not_finite_are_null(world: World, tmp_path: Path, rlu: Command) -> None:
    before, after = world.states
    frozen = {**before, "fc3.bias": after["fc3.bias"]}
    pair = write_pair(tmp_path / "pair", before, frozen)
    result = rlu("attack", *pair, "--aux", world.aux, *world.told, "--format", "json")
    figures = json.loads(result.out, parse_constant=pytest.fail)["diagnostics"]
    assert figures["weight_column_sum"] is None
    assert figures["bias_rounding"] < 0.05


def test_half_precision_is_said(world: World, tmp_path: Path, rlu: Command) -> None:
    halves = [{n: t.half() for n, t in state.items()} for state in world.states]
    pair = write_pair(tmp_path / "pair", *halves)
    report = rlu("attack", *pair, "--aux", world.aux, *world.told, "--format", "json").report
    assert "checkpoints in float16, converted to float32" in report["assumptions"]


def test_rounding_that_hides_the_update_is_warned_of(
    world: World, tmp_path: Path, rlu: Command
) -> None:
    coarse = [{n: t.bfloat16() for n, t in state.items()} for state in world.states]
    pair = write_pair(tmp_path / "pair", *coarse)
    report = rlu("attack", *pair, "--aux", world.aux, *world.told, "--format", "json").report
    assert report["diagnostics"]["bias_rounding"] > 0.05
    assert "W302" in [warning["code"] for warning in report["warnings"]]


def test_steps_that_the_counters_contradict(world: World, tmp_path: Path, rlu: Command) -> None:
    """Counters in a model without BatchNorm cannot be: a network of the user's own has them."""
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "def Net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),"
        " nn.Flatten(), nn.Linear(4, 10))\n"
    )
    torch.manual_seed(0)
    scope: dict[str, Callable[[], torch.nn.Module]] = {}
    exec(code.read_text(), scope)
    before = scope["Net"]().state_dict()
    after = {**before, "4.weight": before["4.weight"] + 0.01, "4.bias": before["4.bias"] + 0.01}
    after["1.num_batches_tracked"] = torch.tensor(5)
    pair = write_pair(tmp_path / "pair", before, after)
    words = ["--model", f"{code}:Net", "--lr", 0.1, "--epochs", 3, "--normalize", "half"]
    report = rlu("attack", *pair, "--aux", world.aux, *words, "--format", "json").report
    (steps,) = [w["text"] for w in report["warnings"] if w["code"] == "W304"]
    assert "5 steps, the settings give 3" in steps
    assert "--epochs 5" in steps
    assert report["settings"]["mode"] == {"value": "train", "source": "the model's layers"}


# Names that try to upset a terminal, a table or a parser

ODD_NAMES = (
    "\x1b[31mred\x07",
    "[bold]x[",
    "a:dog:b",
    "bidi\u202eabc",
    "back\\",
    "x\ny",
    "L" * 200,
    "猫" * 60,
    "=cmd",
    "é\x9b2J",
)


@pytest.fixture
def odd(world: World, tmp_path: Path, told: list[str]) -> list[str]:
    folder = tmp_path / "odd"
    for number, name in enumerate(sorted(ODD_NAMES)):
        shutil.copytree(world.aux / str(number), folder / name)
    told[told.index("--aux") + 1] = str(folder)
    return told


def _unsafe(text: str) -> set[str]:
    return set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("listed", [True, False])
def test_names_are_shown_safely(
    form: str, listed: bool, odd: Words, work: Path, rlu: Command
) -> None:
    if listed:
        (work / "rlu.toml").write_text(f"classes = {json.dumps(sorted(ODD_NAMES))}")
    result = rlu(*odd, "--format", form)
    assert result.status == 0
    assert not _unsafe(result.out + result.err)
    assert "red\\\\x07" in result.out if form == "json" else "red\\x07" in result.out


def test_settings_are_shown_safely(odd: Words, work: Path, rlu: Command) -> None:
    (work / "rlu.toml").write_text(f"classes = {json.dumps(sorted(ODD_NAMES))}")
    result = rlu(*odd, "--show-settings")
    assert not _unsafe(result.out + result.err)


def test_a_table_is_not_cut_where_there_is_no_terminal(odd: Words, rlu: Command) -> None:
    out = rlu(*odd).out
    cells = [line.split("│")[1].strip() for line in out.splitlines() if line.count("│") == 6]
    names = [cell.partition(" ")[2] for cell in cells]
    expected = {"[bold]x[", "a:dog:b", "back\\", "L" * 200, "猫" * 60, "x\\ny", "=cmd"}
    assert expected <= set(names)


def test_names_of_bytes_that_are_no_text(odd: Words, world: World, rlu: Command) -> None:
    folder = Path(odd[odd.index("--aux") + 1])
    (folder / "=cmd").rename(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    assert rlu(*odd, "--format", "json").status == 0
    truth = os.fsdecode(b"\xff.json")
    Path(truth).write_text(json.dumps(world.counts))
    report = rlu(*odd, "--truth", truth, "--format", "json").report
    assert report["inputs"]["truth"]["path"].endswith("\\udcff.json")


def test_two_hundred_classes_of_long_names(tmp_path: Path, world: World, rlu: Command) -> None:
    from PIL import Image

    names = [f"{number:03d}-{'long name ' * 8}" for number in range(200)]
    folder = tmp_path / "many"
    pixel = Image.new("RGB", (4, 4))
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for shade in range(2):
            pixel.putpixel((0, 0), (number, shade, 0))
            pixel.save(folder / name / f"{shade}.png")
    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\n"
        "def Net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 200))\n"
    )
    torch.manual_seed(0)
    before = torch.nn.Linear(48, 200).state_dict()
    before = {f"1.{name}": tensor for name, tensor in before.items()}
    after = {name: tensor - 0.01 * torch.randn_like(tensor) for name, tensor in before.items()}
    pair = write_pair(tmp_path / "pair", before, after)
    words = ["--model", f"{code}:Net", "--lr", 1, "--epochs", 1, "--batch-size", 400]
    told = ["attack", *pair, "--aux", folder, *words, "--normalize", "none", "--draws", DRAWS]
    out = rlu(*told).out
    body = [line for line in out.splitlines() if line.startswith("│")]
    assert len(body) > 24
    assert all("long name " * 7 in line and "…" not in line for line in body)
    report = rlu(*told, "--format", "json").report
    assert [row["class"] for row in report["result"]["counts"]] == names


# Terminals

LIKE_A_TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "80"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, rlu: Command) -> Command:
    """rlu with a standard output that says it is a terminal."""

    def run(*words: object) -> Outcome:
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
            for name, value in LIKE_A_TERMINAL.items():
                patch.setenv(name, value)
            return rlu(*words)

    return run


def test_a_terminal_gets_colours(told: Words, terminal: Command) -> None:
    assert "\x1b[" in terminal(*told).out


def test_a_terminal_without_colours(
    told: Words, terminal: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    result = terminal(*told)
    assert result.status == 0
    assert "\x1b" not in result.out
    assert "recovered by pooled" in result.out


def test_a_pipe_gets_no_colours(told: Words, rlu: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in rlu(*told).out


def test_a_file_is_no_terminal(odd: Words, work: Path, terminal: Command) -> None:
    result = terminal(*odd, "--output", "report.txt")
    text = (work / "report.txt").read_text("utf-8")
    assert (result.status, result.out) == (0, "")
    assert "\x1b" not in text
    assert "L" * 200 in text
