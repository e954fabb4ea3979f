"""True counts in every form people keep them in, and truth that cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_world import Command, Refused, Words, World


def _csv(counts: list[int], header: str = "class,count\n") -> str:
    return header + "".join(f"{name},{count}\n" for name, count in enumerate(counts))


FORMS: dict[str, Callable[[list[int]], str]] = {
    "list": json.dumps,
    "by class": lambda counts: json.dumps(dict(enumerate(counts))),
    "by class, zeros left out": lambda counts: json.dumps(
        {name: count for name, count in enumerate(counts) if count}
    ),
    "counts": lambda counts: json.dumps({"counts": counts, "per_step": [[1]], "x": None}),
    "counts of named classes": lambda counts: json.dumps(
        {"counts": counts[::-1], "classes": [str(n) for n in reversed(range(10))]}
    ),
    "csv": _csv,
    "csv without a header": lambda counts: _csv(counts, ""),
    "csv from a spreadsheet": lambda counts: "\ufeff" + _csv(counts).replace("\n", "\r\n"),
    "csv with spaces": lambda counts: _csv(counts).replace(",", " , "),
    "json with a mark": lambda counts: "\ufeff" + json.dumps(counts),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_scores_the_answer(
    form: str, told: Words, world: World, work: Path, rlu: Command
) -> None:
    (work / "truth").write_text(FORMS[form](world.counts), encoding="utf-8", newline="")
    result = rlu(*told, "--truth", "truth", "--format", "json")
    report = result.report
    assert result.counts == world.counts
    assert report["metrics"]["iacc"] == 1.0
    assert report["inputs"]["truth"]["path"] == str(work / "truth")


def test_scores_tell_what_is_wrong(told: Words, world: World, work: Path, rlu: Command) -> None:
    wrong = world.counts[1:] + world.counts[:1]
    (work / "truth").write_text(json.dumps(wrong))
    metrics = rlu(*told, "--truth", "truth", "--format", "json").report["metrics"]
    pairs = list(zip(world.counts, wrong, strict=True))
    assert metrics["iacc"] == pytest.approx(sum(map(min, pairs)) / sum(wrong))
    assert metrics["cacc"] == pytest.approx(sum((a > 0) == (b > 0) for a, b in pairs) / 10)
    assert metrics["exact"] == pytest.approx(sum(a == b for a, b in pairs) / 10)
    even = [2] * 6 + [1] * 4  # 16 labels over 10 classes
    assert metrics["floor_iacc"] == pytest.approx(
        sum(map(min, zip(even, wrong, strict=True))) / 16, abs=4 / 16
    )
    assert metrics["floor_cacc"] == pytest.approx(sum(count > 0 for count in wrong) / 10)


def test_truth_named_in_the_users_own_settings(
    told: Words, world: World, work: Path, rlu: Command
) -> None:
    (work / "kept").mkdir()
    (work / "kept" / "truth.json").write_text(json.dumps(world.counts))
    (work / "rlu.toml").write_text('truth = "kept/truth.json"')
    report = rlu(*told, "--format", "json").report
    assert report["metrics"]["exact"] == 1.0
    assert report["settings"]["truth"]["source"].endswith("rlu.toml")


def test_the_simulators_truth_is_found(world: World, rlu: Command) -> None:
    home = world.run / "r000"
    pair = ["--global", home / "global.pt", "--local", home / "c1.pt"]
    report = rlu("attack", *pair, "--aux", world.aux, "--draws", 200, "--format", "json").report
    assert report["metrics"]["iacc"] == 1.0
    assert report["inputs"]["truth"]["path"].endswith("c1.truth.json")


def test_a_truth_beside_the_client_that_leads_elsewhere_is_not_read(
    world: World, tmp_path: Path, rlu: Command
) -> None:
    run = Path(shutil.copytree(world.run, tmp_path / "run"))
    truth = run / "r000" / "c1.truth.json"
    secret = tmp_path / "secret.json"
    shutil.move(truth, secret)
    truth.symlink_to(secret)
    pair = ["--global", run / "r000" / "global.pt", "--local", run / "r000" / "c1.pt"]
    report = rlu("attack", *pair, "--aux", world.aux, "--draws", 200, "--format", "json").report
    assert report["metrics"] is None
    assert "truth" not in report["inputs"]


UNKNOWN = {
    "empty": "",
    "prose": "hello, world",
    "a header only": "class,count\n",
    "three columns": "0,1,2\n",
    "a number": "16",
    "text": '"16"',
    "fractions": "[1.6, 1.6, 1.6, 1.6, 1.6, 1.6, 1.6, 1.6, 1.6, 1.6]",
    "negative": "[-1, 17, 0, 0, 0, 0, 0, 0, 0, 0]",
    "booleans": json.dumps([True] * 10),
    "nothing": "[null]",
    "not a number": "[NaN]",
    "odd digits": "0,14\n1,²\n",
    "a class twice": "0,8\n0,8\n",
    "a long field": "x" * 200_000 + ",1\n",
    "nested": "[" * 100_000,
    "far too many": json.dumps([10**30] * 10),
}


@pytest.mark.parametrize("content", list(UNKNOWN))
def test_truth_in_an_unknown_format(
    content: str, told: Words, work: Path, refused: Refused
) -> None:
    (work / "truth.json").write_text(UNKNOWN[content], encoding="utf-8")
    refused("E104", 2, [*told, "--truth", "truth.json"], "truth.json", "JSON list", "CSV")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([4, 4, 4, 4], "4 classes, the output layer has 10"),
        ([2] * 11, "11 classes"),
        ([2] * 10, "20 labels, the settings imply 16"),
        ({"0": 16, "cat": 0, "1": 0}, "names classes the model does not have: cat"),
        ({"10": 16}, "10"),
        ({"counts": [16]}, "1 classes"),
    ],
)
def test_truth_that_does_not_fit(
    content: object, named: str, told: Words, work: Path, refused: Refused
) -> None:
    (work / "truth.json").write_text(json.dumps(content))
    refused("E230", 3, [*told, "--truth", "truth.json"], "truth.json", named)


def test_a_truth_that_is_not_there(told: Words, work: Path, refused: Refused) -> None:
    refused("E201", 3, [*told, "--truth", "gone.json"], "gone.json", "--truth")


def test_a_truth_that_is_no_text(told: Words, work: Path, refused: Refused) -> None:
    (work / "truth.json").write_bytes(b"\xff\xfe\x00")
    refused("E201", 3, [*told, "--truth", "truth.json"], "truth.json")


def test_a_clients_own_counts_score_full_passes(world: World, work: Path, rlu: Command) -> None:
    """Two steps of eight labels are one pass over sixteen samples, or two over eight."""
    (work / "truth.json").write_text(json.dumps([1] * 8 + [0, 0]))
    words = ["attack", *world.pair, "--aux", str(world.aux), *world.told, "--truth", "truth.json"]
    report = rlu(*words, "--samples", 8, "--format", "json").report
    found = [row["count"] for row in report["result"]["counts"]]
    twice = [2] * 8 + [0, 0]
    assert report["metrics"]["iacc"] == pytest.approx(sum(map(min, found, twice)) / 16)
