"""Which earlier rounds are attacked, how, which are left out, and what is said of the joint one.

The attack itself is replaced by answers written down here, and every question to it is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from made_case import finding_of, found, independent, recovered

from rlu_cli.attacks import ATTACKS
from rlu_cli.audit import joint_estimate as module
from rlu_cli.audit.finding import CaseFinding, MethodFinding
from rlu_cli.audit.joint_estimate import DISAGREE, NONE_USED, STUDIED, JointEstimate, joint_estimate
from rlu_cli.case.build import Case, build_case
from rlu_cli.errors import InputError, RluError, UsageError
from rlu_cli.settings.layers import Layer, flag_layer
from rlu_cli.types import Auxiliary, Recovery, Setting, Status

SAMPLE = Path(__file__).parents[2] / "sample_data"
TOLD = {"lr": 0.01, "epochs": 10, "batch_size": 32}
ROUNDS = ("r000", "r001", "r002")  # the last one is under study
IMAGES = Auxiliary(
    images=torch.zeros(10, 3, 32, 32),
    labels=torch.arange(10),
    class_names=tuple(map(str, range(10))),
    source="made up",
    sha256="",
)

Asked = list[tuple[str, tuple[str, ...], Case]]  # of each attack: round, methods, case
Answers = Mapping[str, Recovery | RluError]


def _shares(*first: float) -> list[float]:
    """Shares of ten classes, the last ones none."""
    return [*first, *[0.0] * (10 - len(first))]


def _known(*first: float, deviation: float = 0.02, **more: Any) -> Recovery:
    """An answer that knows its error."""
    return recovered(_shares(*first), covariance=independent(deviation, 10), **more)


def _unknown(*first: float, **more: Any) -> Recovery:
    """An answer that knows no error."""
    return recovered(_shares(*first), **more)


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RLU_LR", "RLU_EPOCHS", "RLU_BATCH_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three rounds of the sample's client, no two with the same weights."""
    states = {n: torch.load(SAMPLE / n, weights_only=True) for n in ("g.pt", "c3.pt")}
    for number, name in enumerate(ROUNDS):
        folder = tmp_path / "run" / name
        folder.mkdir(parents=True)
        for file, stem in (("g.pt", "global.pt"), ("c3.pt", "c3.pt")):
            bias = states[file]["fc3.bias"] * (1 + number / 8)
            torch.save({**states[file], "fc3.bias": bias}, folder / stem)
    return tmp_path / "run"


def _say(folder: Path, **record: object) -> None:
    (folder / "round.json").write_text(json.dumps(record), encoding="utf-8")


@dataclass
class _Client:
    """The client under study, and what an attack on each of its rounds answers."""

    run: Path
    answers: dict[str, Recovery | RluError] = field(
        default_factory=lambda: dict.fromkeys(ROUNDS, _known(0.6, 0.4))
    )
    asked: Asked = field(default_factory=list)

    def attack(self, case: Case, methods: tuple[str, ...], **_: object) -> CaseFinding:
        """In place of the real one."""
        name = case.pair.after.path.parent.name
        self.asked.append((name, methods, case))
        answer = self.answers[name]
        if isinstance(answer, RluError):
            raise answer
        return finding_of(case, found(answer, "fusion" if methods == ("auto",) else methods[0]))

    def case(self, home: Path | None = None, **flags: Any) -> Case:
        folder = self.run / ROUNDS[-1] if home is None else home
        given = {**TOLD, "history": str(self.run), **flags}
        return build_case(folder / "global.pt", folder / "c3.pt", IMAGES, flag_layer(given))

    def finding(
        self,
        home: Path | None = None,
        method: MethodFinding | None = None,
        settings: Mapping[str, Setting] | None = None,
        **flags: Any,
    ) -> CaseFinding:
        case, answer = self.case(home, **flags), self.answers[ROUNDS[-1]]
        assert isinstance(answer, Recovery)
        own = found(answer, "fusion") if method is None else method
        return finding_of(case, own, settings={**case.settings, **(settings or {})})

    def joint(self, home: Path | None = None, **more: Any) -> JointEstimate:
        joint = joint_estimate(self.finding(home, **more))
        assert joint is not None
        return joint


@pytest.fixture
def client(run: Path, monkeypatch: pytest.MonkeyPatch) -> _Client:
    made = _Client(run)
    monkeypatch.setattr(module, "attack", made.attack)
    return made


def _used(joint: JointEstimate) -> list[str]:
    return [one.name for one in joint.rounds]


def _left_out(joint: JointEstimate) -> list[tuple[str, str | None]]:
    return [(one.name, one.code) for one in joint.left_out]


def _codes(joint: JointEstimate) -> list[str]:
    return [warning.code for warning in joint.warnings]


# Whether anybody asked for it.


def test_a_history_asks_for_it(client: _Client) -> None:
    joint = client.joint()
    assert _used(joint) == list(ROUNDS)
    assert joint.left_out == ()
    assert joint.pooled is not None
    assert float(joint.pooled.shares.sum()) == pytest.approx(1)
    assert joint.pooled.covariance is not None


@pytest.mark.parametrize(
    "flags",
    [
        {"history": None},
        {"joint": False},
        {"scheme": "scaffold"},
        {"scheme": "scaffold", "joint": False},
    ],
)
def test_nobody_asked_for_it(flags: dict[str, Any], client: _Client) -> None:
    for name in ROUNDS:  # every client took part, so that scaffold's own value can be derived
        _say(client.run / name, clients=[3], total_clients=1)
    assert joint_estimate(client.finding(**flags)) is None
    assert client.asked == []


def test_of_a_scheme_with_memory_it_has_to_be_asked_for(client: _Client) -> None:
    for name in ROUNDS:
        _say(client.run / name, clients=[3], total_clients=1)
    assert _used(client.joint(scheme="scaffold", joint=True)) == list(ROUNDS)


# How earlier rounds are attacked.


def test_each_earlier_round_is_attacked_once_in_order_and_the_one_under_study_is_not(
    client: _Client,
) -> None:
    client.joint()
    assert [name for name, _, _ in client.asked] == ["r000", "r001"]


def test_rounds_after_the_one_under_study_do_not_count(client: _Client) -> None:
    joint = client.joint(client.run / "r001")
    assert [name for name, _, _ in client.asked] == ["r000"]
    assert _used(joint) == ["r000", "r001"]


def test_the_method_that_answered_attacks_the_others(client: _Client) -> None:
    client.joint(method=found(_known(0.6, 0.4), "path"))
    assert {methods for _, methods, _ in client.asked} == {("path",)}


def test_where_the_choice_was_left_to_auto_it_is_left_so_for_each_round(client: _Client) -> None:
    client.joint(method=found(_known(0.6, 0.4), "fusion", chosen="it is trained"))
    assert {methods for _, methods, _ in client.asked} == {("auto",)}


def test_a_method_that_refused_does_not_attack_the_others(client: _Client) -> None:
    case = client.case()
    refused, answered = found(None, "rlu", refused="no"), found(_known(0.6, 0.4), "path")
    joint = joint_estimate(finding_of(case, refused, answered))
    assert joint is not None
    assert {methods for _, methods, _ in client.asked} == {("path",)}


def test_images_and_settings_are_those_of_the_round_under_study(client: _Client) -> None:
    client.joint(draws=77, seed=5)
    for _, _, case in client.asked:
        assert case.auxiliary is IMAGES
        assert case.value("draws") == 77
        assert case.value("seed") == 5
        assert case.value("lr") == 0.01


def test_a_rate_of_its_own_is_taken_from_the_rounds_record(client: _Client) -> None:
    _say(client.run / "r001", lr=0.05)
    client.joint()
    assert [case.value("lr") for _, _, case in client.asked] == [0.01, 0.05]


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[Layer]:
    """The settings that each earlier round is to be read under; no round is built."""
    seen: list[Layer] = []

    def build(start: Path, end: Path, aux: Auxiliary, flags: Layer) -> Case:
        seen.append(flags)
        raise InputError("E215", "no model", hint="none")

    monkeypatch.setattr(module, "build_case", build)
    return seen


def test_what_is_of_this_round_alone_is_not_shared(client: _Client, layers: list[Layer]) -> None:
    client.joint(truth=str(SAMPLE / "c3.truth.json"), output="report.json", joint=True)
    assert len(layers) == 2
    for layer in layers:
        assert not {"truth", "output", "joint"} & set(layer.values)
        assert layer.values["history"].value == str(client.run)


def test_what_was_read_from_the_files_is_shared(client: _Client, layers: list[Layer]) -> None:
    read = {
        "model": Setting("lenet5", "keys and shapes"),
        "model_args": Setting({"act": "silu"}, "fit to the files"),
        "normalize": Setting("half", "fit to the files"),
        "mode": Setting("eval", "the model's layers"),
    }
    client.joint(settings=read)
    for layer in layers:
        assert {name: layer.values[name].value for name in read} == {
            name: setting.value for name, setting in read.items()
        }


def test_a_rate_that_was_inferred_is_inferred_anew(client: _Client, layers: list[Layer]) -> None:
    _say(client.run / "r001", lr=0.05)
    case = client.case()
    untold = {name: setting for name, setting in case.settings.items() if name != "lr"}
    studied = Case(**{**vars(case), "settings": untold})
    inferred = {**untold, "lr": Setting(0.02, "inferred from BatchNorm means")}
    joint_estimate(finding_of(studied, found(_known(0.6, 0.4)), settings=inferred))
    assert all("lr" not in layer.values for layer in layers)


def test_progress_names_the_round(client: _Client) -> None:
    said: list[str] = []
    joint_estimate(client.finding(), said.append)
    assert ["r000" in said[0], "r001" in said[1]] == [True, True]
    assert "2" in said[0]


# Rounds that are left out.


def test_a_round_the_client_sat_out_is_no_round_of_its(client: _Client) -> None:
    _say(client.run / "r000", clients=[0, 1])
    joint = client.joint()
    assert _used(joint) == ["r001", "r002"]
    assert joint.left_out == ()


def _remove_global(folder: Path) -> None:
    (folder / "global.pt").unlink()


def _other_steps(folder: Path) -> None:
    _say(folder, steps=7)


def _repeat(folder: Path) -> None:
    shutil.copy(folder.parent / "r002" / "c3.pt", folder / "c3.pt")


def _corrupt(folder: Path) -> None:
    (folder / "c3.pt").write_bytes(b"PK\x03\x04 no")


def _nothing_moved(folder: Path) -> None:
    shutil.copy(folder / "global.pt", folder / "c3.pt")


def _head_alone(folder: Path) -> None:
    for file in ("global.pt", "c3.pt"):
        state = torch.load(folder / file, weights_only=True)
        torch.save({n: t for n, t in state.items() if n.startswith("fc3.")}, folder / file)


def _broken_record(folder: Path) -> None:
    (folder / "round.json").write_text("{", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_remove_global, "E231"),
        (_other_steps, "E231"),
        (_repeat, "E231"),
        (_broken_record, "E231"),
        (_corrupt, "E202"),
        (_nothing_moved, "E213"),
        (_head_alone, "E215"),
    ],
)
def test_a_round_that_cannot_be_read_is_left_out_with_the_code_of_its_error(
    spoil: Callable[[Path], None], code: str, client: _Client
) -> None:
    spoil(client.run / "r000")
    joint = client.joint()
    assert _left_out(joint) == [("r000", code)]
    assert joint.left_out[0].reason
    assert _used(joint) == ["r001", "r002"]
    assert [name for name, _, _ in client.asked] == ["r001"]


def test_the_steps_of_both_are_said_where_they_differ(client: _Client) -> None:
    _say(client.run / "r000", steps=7)
    reason = client.joint().left_out[0].reason
    assert "7" in reason
    assert "10" in reason


def test_as_many_steps_as_the_settings_say_are_no_reason(client: _Client) -> None:
    _say(client.run / "r000", steps=10)
    assert client.joint().left_out == ()


def test_of_two_earlier_rounds_with_one_file_the_first_counts(client: _Client) -> None:
    shutil.copy(client.run / "r000" / "c3.pt", client.run / "r001" / "c3.pt")
    joint = client.joint()
    assert _used(joint) == ["r000", "r002"]
    assert _left_out(joint) == [("r001", "E231")]


def test_a_round_that_the_method_refuses_is_left_out(client: _Client) -> None:
    client.answers["r001"] = UsageError("E109", "cannot be used", hint="none")
    assert _left_out(client.joint()) == [("r001", "E109")]


def test_a_defect_is_not_hidden_as_a_round_left_out(
    client: _Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> CaseFinding:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "attack", fail)
    with pytest.raises(ZeroDivisionError):
        client.joint()


@pytest.mark.parametrize("status", [status for status in Status if not status.ok])
def test_a_round_that_did_not_settle_is_left_out_with_how_it_ended(
    status: Status, client: _Client
) -> None:
    client.answers["r001"] = _known(0.6, 0.4, status=status)
    joint = client.joint()
    assert _left_out(joint) == [("r001", None)]
    assert joint.left_out[0].reason == status.value
    assert _used(joint) == ["r000", "r002"]


def test_the_round_under_study_is_left_out_too_where_it_did_not_settle(client: _Client) -> None:
    client.answers["r002"] = _known(0.6, 0.4, status=Status.UNINFORMATIVE)
    joint = client.joint()
    assert _left_out(joint) == [("r002", None)]
    assert _used(joint) == ["r000", "r001"]
    assert joint.pooled is not None


@pytest.mark.parametrize("vague", [_unknown(0.6, 0.4), _known(0.6, 0.4, deviation=float("inf"))])
def test_a_round_of_unknown_error_is_left_out_where_others_know_theirs(
    vague: Recovery, client: _Client
) -> None:
    client.answers["r001"] = vague
    joint = client.joint(method=found(_known(0.6, 0.4), "fusion"))
    assert _left_out(joint) == [("r001", None)]
    assert ATTACKS["fusion"].title in joint.left_out[0].reason
    assert _used(joint) == ["r000", "r002"]


def test_where_one_round_alone_knows_its_error_all_are_averaged(client: _Client) -> None:
    client.answers.update(r000=_unknown(0.8, 0.2), r001=_unknown(0.6, 0.4))
    joint = client.joint()
    assert _used(joint) == list(ROUNDS)
    assert joint.left_out == ()
    assert joint.pooled is not None
    assert joint.pooled.covariance is None
    assert joint.pooled.shares[:2].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_rounds_left_out_are_listed_in_order(client: _Client) -> None:
    client.answers["r000"] = _known(0.6, 0.4, status=Status.UNSOLVED)
    _remove_global(client.run / "r001")
    assert _left_out(client.joint()) == [("r000", None), ("r001", "E231")]


# Where the round under study lies.


def test_a_round_under_study_that_lies_elsewhere_has_no_folders_name(
    client: _Client, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(client.run / "r002", tmp_path / "elsewhere"))
    shutil.rmtree(client.run / "r002")
    assert _used(client.joint(home)) == ["r000", "r001", STUDIED]


def test_a_copy_of_the_round_under_study_in_the_history_is_not_counted_twice(
    client: _Client, tmp_path: Path
) -> None:
    home = Path(shutil.copytree(client.run / "r002", tmp_path / "elsewhere"))
    joint = client.joint(home)
    assert _used(joint) == ["r000", "r001", STUDIED]
    assert _left_out(joint) == [("r002", "E231")]


# Too few rounds.


def test_no_earlier_round_is_w341(client: _Client) -> None:
    joint = client.joint(client.run / "r000")
    assert joint.pooled is None
    assert joint.truth is None
    assert _used(joint) == ["r000"]
    assert _codes(joint) == [NONE_USED] == ["W341"]


def test_w341_names_the_codes_of_what_was_left_out_once_each(client: _Client) -> None:
    for name in ("r000", "r001"):
        _remove_global(client.run / name)
    (warning,) = client.joint().warnings
    assert warning.code == "W341"
    assert warning.text.count("E231") == 1


def test_w341_names_no_round_and_so_may_be_shown_when_redacted(client: _Client) -> None:
    client.answers.update(r000=_known(1, status=Status.UNSOLVED))
    _corrupt(client.run / "r001")
    (warning,) = client.joint().warnings
    assert "E202" in warning.text
    assert not [name for name in ROUNDS if name in warning.text]
    assert warning.redacted is None


# Agreement.


def test_rounds_that_agree_give_no_warning(client: _Client) -> None:
    assert client.joint().warnings == ()


def test_rounds_that_differ_by_more_than_their_errors_are_w340(client: _Client) -> None:
    client.answers["r000"] = _known(0.1, 0.9)
    joint = client.joint()
    (warning,) = joint.warnings
    assert warning.code == DISAGREE == "W340"
    assert joint.pooled is not None
    assert joint.pooled.agreement is not None
    assert joint.pooled.agreement.p_value < 0.01
    assert f"{joint.pooled.agreement.variance_inflation:.1f}" in warning.text
    assert "p = " in warning.text


def test_rounds_of_a_large_error_may_differ(client: _Client) -> None:
    client.answers["r000"] = _known(0.5, 0.5, deviation=0.2)
    assert client.joint().warnings == ()


def test_without_errors_nobody_can_say_that_rounds_disagree(client: _Client) -> None:
    client.answers.update(r000=_unknown(1.0), r001=_unknown(0.0, 1.0), r002=_unknown(0.5, 0.5))
    joint = client.joint(method=found(_unknown(0.5, 0.5), "rlu"))
    assert joint.warnings == ()


# The truth.


def _write_truth(folder: Path, counts: Sequence[int]) -> None:
    if not (folder / "round.json").is_file():
        _say(folder)
    text = json.dumps([*counts, *[0] * (10 - len(counts))])
    (folder / "c3.truth.json").write_text(text, encoding="utf-8")


def test_the_truth_over_rounds_is_that_of_all_their_labels(client: _Client) -> None:
    for name, counts in zip(ROUNDS, ([320], [0, 320], [80, 240]), strict=True):
        _write_truth(client.run / name, counts)
    joint = client.joint()
    assert joint.truth is not None
    assert joint.truth.tolist() == pytest.approx(_shares(400 / 960, 560 / 960))
    assert [one.truth is not None for one in joint.rounds] == [True] * 3


def test_where_one_round_does_not_tell_its_truth_there_is_none(client: _Client) -> None:
    for name in ROUNDS[1:]:
        _write_truth(client.run / name, [320])
    assert client.joint().truth is None


def test_only_the_truth_of_rounds_that_are_used_counts(client: _Client) -> None:
    for name in ROUNDS[1:]:
        _write_truth(client.run / name, [320])
    _remove_global(client.run / "r000")
    truth = client.joint().truth
    assert truth is not None
    assert truth.tolist() == _shares(1.0)


# What is pooled, and what a reader should know of it.


def test_a_round_tells_its_shares_before_they_were_held_above_zero(client: _Client) -> None:
    free = _shares(1.1, -0.1)
    client.answers["r000"] = _known(1.0, unconstrained=free)
    one = client.joint().rounds[0].shares
    assert one.shares.tolist() == free
    assert one.bounded is not None
    assert one.bounded.tolist() == _shares(1.0)


def test_without_an_error_it_tells_the_shares_it_reports(client: _Client) -> None:
    client.answers.update(r000=_unknown(1.0, unconstrained=_shares(1.1, -0.1)), r001=_unknown(1.0))
    one = client.joint(method=found(_unknown(1.0))).rounds[0].shares
    assert one.shares.tolist() == _shares(1.0)


@pytest.mark.parametrize(
    ("flags", "total", "drawn", "held"),
    [
        ({}, 320, 320, None),
        ({"batch_size": None}, None, None, None),
        ({"epochs": 2, "samples": 64}, 128, 64, 64),
        ({"epochs": 1, "samples": 64}, 64, 64, 64),
    ],
)
def test_a_round_shows_no_more_images_than_the_client_holds(
    flags: dict[str, Any],
    total: int | None,
    drawn: int | None,
    held: int | None,
    client: _Client,
) -> None:
    for one in client.joint(**flags).rounds:
        assert (one.total, one.shares.drawn, one.shares.held) == (total, drawn, held)


def test_there_is_nothing_to_note_of_rounds_that_know_their_error(client: _Client) -> None:
    assert client.joint().notes == ()


def test_a_mean_without_an_interval_names_the_method_that_knows_no_error(client: _Client) -> None:
    client.answers.update(r000=_unknown(1.0), r001=_unknown(1.0))
    (note,) = client.joint(method=found(_unknown(1.0), "rlu")).notes
    assert "no interval" in note
    assert note.count(ATTACKS["rlu"].title) == 1


def test_without_a_batch_size_it_is_noted_that_the_drawing_of_images_is_not_counted(
    client: _Client,
) -> None:
    (note,) = client.joint(batch_size=None).notes
    assert "no batch size" in note


def test_rounds_over_the_same_images_are_noted_to_add_little(client: _Client) -> None:
    (note,) = client.joint(epochs=2, samples=64).notes
    assert "the same images" in note
