"""`--history`: the client's earlier rounds attacked too, and one estimate over all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_world import Command, Refused, Words

from rlu_cli.simulator import images
from rlu_cli.simulator.local import Local
from rlu_cli.simulator.plan import Plan
from rlu_cli.simulator.simulation import Request, prepare

PLAN = Plan(clients=2, batch_size=32, epochs=2, lr=0.01, rounds=3, only=(1,))
SMALL_VGG = ("width=0.125", "hidden=64")


def _simulated(folder: Path, plan: Plan, model: str = "lenet5", *arguments: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "TRAIN_PER_CLASS", 30)
        patch.setattr(images, "TEST_PER_CLASS", 10)
        request = Request(
            plan, torch.device("cpu"), model=model, model_args=arguments, aux_per_class=8
        )
        assert len(list(prepare(request, folder).rounds())) == plan.rounds
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds of a LeNet-5: all but exactly readable, though `rlu` knows no error."""
    return _simulated(tmp_path_factory.mktemp("plain") / "run", PLAN)


@pytest.fixture(scope="module")
def buffers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds of a small VGG-16, whose BatchNorm buffers are read with their error."""
    return _simulated(tmp_path_factory.mktemp("buffers") / "run", PLAN, "vgg16", *SMALL_VGG)


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """A copy of the plain run that a test may spoil."""
    return Path(shutil.copytree(plain, tmp_path / "run"))


def _words(run: Path, *more: object, number: int = 2) -> list[str]:
    home = run / f"r{number:03d}"
    pair = ["--global", home / "global.pt", "--local", home / "c1.pt"]
    rest = ["--history", run, "--draws", 200, "--format", "json", *more]
    return ["attack", *map(str, [*pair, "--aux", run / "aux", *rest])]


def _true_shares(run: Path, rounds: int = 3) -> list[float]:
    counts = [
        json.loads((run / f"r{n:03d}" / "c1.truth.json").read_text("utf-8"))["counts"]
        for n in range(rounds)
    ]
    total = sum(map(sum, counts))
    return [sum(each) / total for each in zip(*counts, strict=True)]


def _left_out(joint: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(one["round"], one["code"]) for one in joint["left_out"]]


def _used(joint: dict[str, Any]) -> list[str]:
    return [one["round"] for one in joint["rounds"]]


def test_the_mean_over_rounds_where_no_error_is_known(plain: Path, rlu: Command) -> None:
    joint = rlu(*_words(plain, "--method", "rlu")).report["joint"]
    assert _used(joint) == ["r000", "r001", "r002"]
    assert joint["left_out"] == []
    found = [row["share"] for row in joint["shares"]]
    assert found == pytest.approx(_true_shares(plain), abs=0.01)
    assert joint["metrics"]["iacc"] > 0.98
    assert joint["metrics"]["floor_iacc"] == pytest.approx(
        sum(min(0.1, share) for share in _true_shares(plain))
    )
    assert {row["low"] for row in joint["shares"]} == {None}
    assert "no interval" in joint["notes"][0]


def test_where_the_error_is_known_every_share_has_an_interval(plain: Path, rlu: Command) -> None:
    report = rlu(*_words(plain)).report
    joint, truth = report["joint"], _true_shares(plain)
    assert report["methods"][0]["method"] == "pooled"
    assert _used(joint) == ["r000", "r001", "r002"]
    assert joint["left_out"] == joint["notes"] == []
    assert [row["share"] for row in joint["shares"]] == pytest.approx(truth, abs=0.01)
    assert joint["metrics"]["iacc"] > 0.98
    for row in joint["shares"]:
        assert 0 <= row["low"] <= row["share"] <= row["high"] <= 1


def test_the_answer_of_the_round_itself_is_the_same_with_and_without(
    plain: Path, rlu: Command
) -> None:
    words = _words(plain)
    alone, joined = rlu(*words, "--no-joint").report, rlu(*words).report
    assert alone["joint"] is None
    assert alone["result"] == joined["result"]
    assert alone["metrics"] == joined["metrics"]


def test_intervals_of_all_rounds_are_narrower_than_those_of_one(
    buffers: Path, rlu: Command
) -> None:
    report = rlu(*_words(buffers)).report
    joint = report["joint"]
    assert report["methods"][0]["method"] == "pooled"
    assert _used(joint) == ["r000", "r001", "r002"]
    assert sum(row["share"] for row in joint["shares"]) == pytest.approx(1)
    assert all(row["low"] <= row["share"] <= row["high"] for row in joint["shares"])
    # A round of 64 labels tells what the client holds to ± 1.645 √(z(1 - z)/64) at the best.
    largest = max(joint["shares"], key=lambda row: row["share"])
    one_round = 2 * 1.645 * (largest["share"] * (1 - largest["share"]) / 64) ** 0.5
    assert largest["high"] - largest["low"] < one_round * joint["agreement"]["widened"] ** 0.5
    assert 0 <= joint["agreement"]["p_value"] <= 1
    assert joint["metrics"]["iacc"] > joint["metrics"]["floor_iacc"]


def test_a_reader_sees_the_joint_shares(buffers: Path, rlu: Command) -> None:
    shown = rlu(*_words(buffers, "--format", "table"))
    assert shown.status == 0
    assert "label shares over 3 rounds (r000, r001, r002)" in shown.out
    assert "agreement of the rounds: χ²" in shown.out
    assert "joint iAcc" in shown.out


def test_only_rounds_before_the_one_under_study_count(plain: Path, rlu: Command) -> None:
    assert _used(rlu(*_words(plain, number=1)).report["joint"]) == ["r000", "r001"]


def test_no_earlier_round_is_a_warning_and_no_failure(plain: Path, rlu: Command) -> None:
    report = rlu(*_words(plain, number=0)).report
    assert report["joint"]["shares"] == []
    assert [w["code"] for w in report["warnings"]] == ["W341"]


def _cut_to_the_head(folder: Path) -> None:
    for file in (folder / "global.pt", folder / "c1.pt"):
        state = torch.load(file, weights_only=True)
        torch.save({n: v for n, v in state.items() if n.startswith("fc3.")}, file)


def _not_finite(folder: Path) -> None:
    state = torch.load(folder / "c1.pt", weights_only=True)
    state["fc3.bias"][0] = float("nan")
    torch.save(state, folder / "c1.pt")


def _repeat(folder: Path) -> None:
    shutil.copy(folder.parent / "r002" / "c1.pt", folder / "c1.pt")


def _say(folder: Path, **told: object) -> None:
    record = json.loads((folder / "round.json").read_text("utf-8"))
    (folder / "round.json").write_text(json.dumps({**record, **told}), encoding="utf-8")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "only output layers": (_cut_to_the_head, "E215"),
    "not finite": (_not_finite, "E207"),
    "corrupt": (lambda folder: (folder / "c1.pt").write_bytes(b"PK\x03\x04 no"), "E202"),
    "a missing client": (lambda folder: (folder / "c1.pt").unlink(), "E231"),
    "a missing global": (lambda folder: (folder / "global.pt").unlink(), "E231"),
    "a broken record": (lambda folder: (folder / "round.json").write_text("{"), "E231"),
    "the same file twice": (_repeat, "E231"),
    "another number of steps": (lambda folder: _say(folder, steps=7), "E231"),
    "nothing moved": (lambda folder: shutil.copy(folder / "global.pt", folder / "c1.pt"), "E213"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_round_that_cannot_be_read_is_left_out_and_said_so(
    kind: str, run: Path, rlu: Command
) -> None:
    spoil, code = SPOILT[kind]
    spoil(run / "r001")
    joint = rlu(*_words(run)).report["joint"]
    assert _left_out(joint) == [("r001", code)]
    assert joint["left_out"][0]["reason"]
    assert _used(joint) == ["r000", "r002"]


def test_a_round_without_the_client_is_no_round_of_its(run: Path, rlu: Command) -> None:
    _say(run / "r001", clients=[0])
    joint = rlu(*_words(run)).report["joint"]
    assert _used(joint) == ["r000", "r002"]
    assert joint["left_out"] == []


def test_a_rate_of_its_own_is_taken_from_the_rounds_record(run: Path, rlu: Command) -> None:
    """With twice the rate in its record a round reads as half of its labels, and fits worse."""
    truth = _true_shares(run)

    def distance() -> float:
        shares = [row["share"] for row in rlu(*_words(run)).report["joint"]["shares"]]
        return float(sum(abs(a - b) for a, b in zip(shares, truth, strict=True)))

    right = distance()
    _say(run / "r000", lr=0.02)
    assert distance() > right + 0.02


def test_the_round_under_study_may_lie_elsewhere_and_is_counted_once(
    run: Path, tmp_path: Path, rlu: Command
) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    for name in ("global.pt", "c1.pt"):
        shutil.copy(run / "r002" / name, home / name)
    told = ["--lr", 0.01, "--epochs", 2, "--batch-size", 32, "--model-arg", "act=relu"]
    pair = ["--global", home / "global.pt", "--local", home / "c1.pt", "--aux", run / "aux"]
    rest = ["--history", run, "--draws", 200, "--normalize", "half", "--format", "json"]
    joint = rlu("attack", *pair, *told, *rest).report["joint"]
    assert _used(joint) == ["r000", "r001", "under study"]
    assert _left_out(joint) == [("r002", "E231")]
    assert joint["metrics"] is None


def test_a_scheme_with_memory_is_joined_only_on_request(tmp_path: Path, rlu: Command) -> None:
    plan = replace(PLAN, local=Local(scheme="scaffold"), rounds=2)
    run = _simulated(tmp_path / "memory", plan)
    words = _words(run, number=1)
    assert rlu(*words).report["joint"] is None
    joint = rlu(*words, "--joint").report["joint"]
    assert _used(joint) == ["r000", "r001"]
    assert joint["metrics"]["iacc"] > 0.95


def test_a_joint_estimate_needs_a_history(told: Words, refused: Refused) -> None:
    refused("E102", 2, [*told, "--joint"], "history", "--history DIR")


def test_redacted_the_checks_stay_and_the_shares_go(run: Path, rlu: Command) -> None:
    _cut_to_the_head(run / "r001")
    for form in ("json", "table"):
        shown = rlu(*_words(run, "--redact", "--format", form))
        assert shown.status == 0
        assert str(run) not in shown.out
        assert "label shares over" not in shown.out
    joint = rlu(*_words(run, "--redact")).report["joint"]
    assert {value for row in joint["shares"] for key, value in row.items() if key != "index"} == {
        None
    }
    assert joint["metrics"] is not None
    assert joint["left_out"] == [{"round": "r001", "code": "E215", "reason": None}]
