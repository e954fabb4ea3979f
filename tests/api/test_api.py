"""The Python API: what each function takes, gives back and refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import rlu_cli
from rlu_cli.api.finding import Calibration, Finding, SimulatedFederation
from rlu_cli.api.settings import AttackSettings, CalibrateSettings, SimulateSettings
from rlu_cli.audit.credibility import credibility
from rlu_cli.audit.warning import FindingWarning
from rlu_cli.case.auxiliary import load_auxiliary
from rlu_cli.errors import InputError, UsageError
from rlu_cli.reports import FORMATS
from rlu_cli.settings.specs import ATTACK, CALIBRATE, SIMULATE
from rlu_cli.settings.table import taken_by
from rlu_cli.simulator import images as simulated_images
from rlu_cli.types import Auxiliary

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample_data"
COUNTS = [15, 1, 123, 3, 63, 7, 7, 49, 2, 50]
TOLD: AttackSettings = {
    "lr": 0.01,
    "epochs": 10,
    "batch_size": 32,
    "model": "lenet5",
    "model_args": {"act": "relu"},
    "normalize": "half",
    "draws": 200,
}


def _told(**more: Any) -> Any:
    """All settings of the sample's client, and more or others."""
    return {**TOLD, **more}


@pytest.fixture(scope="module", autouse=True)
def _alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One core, an empty working directory, and no setting in the environment."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("RLU_")]:
            patch.delenv(name)
        patch.chdir(tmp_path_factory.mktemp("work"))
        yield
    torch.set_num_threads(threads)


def _state(name: str) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(SAMPLE / name, weights_only=True)
    return loaded


def _images(*names: str) -> Auxiliary:
    """The sample's images, under other class names where any are given."""
    read = load_auxiliary(SAMPLE / "aux", size=32, per_class=10)
    return replace(read, class_names=names or read.class_names)


@pytest.fixture(scope="module")
def finding() -> Finding:
    """The sample's client, from its files and the settings beside them."""
    return rlu_cli.attack(SAMPLE / "g.pt", SAMPLE / "c3.pt", SAMPLE / "aux", draws=200)


@pytest.fixture(scope="module")
def from_states() -> Finding:
    """The same client from state dicts, all settings as arguments."""
    return rlu_cli.attack(_state("g.pt"), _state("c3.pt"), SAMPLE / "aux", **TOLD)


def _with_error(finding: Finding, deviation: float, **plan: Any) -> Finding:
    """The same finding, its shares known to within `deviation`."""
    first, case = finding.first, finding.case_finding.case
    assert first.recovery is not None
    covariance = deviation**2 * (torch.eye(10, dtype=torch.float64) - 0.1)
    plan_ = replace(case.plan, **plan)
    recovery = replace(first.recovery, covariance=covariance, posterior=None)
    known = credibility(recovery, None, total=plan_.total, passes=1, confidence=0.9)
    method = replace(first, recovery=recovery, credibility=known)
    training = replace(case.training, plan=plan_)
    told = replace(finding.case_finding, case=replace(case, training=training), methods=(method,))
    return replace(finding, case_finding=told)


# attack


def test_counts_shares_and_score_are_those_of_the_client(finding: Finding) -> None:
    assert finding.counts == dict(zip(finding.classes, COUNTS, strict=True))
    assert finding.classes == tuple(map(str, range(10)))
    assert sum(finding.shares.values()) == pytest.approx(1)
    assert min(finding.shares.values()) >= 0
    assert list(finding.shares) == list(finding.classes)
    assert finding.method == "pooled"
    assert finding.ok
    assert finding.status
    assert finding.score is not None
    assert finding.score.iacc == 1
    assert (finding.joint, finding.expected, finding.extra) == (None, None, ())


def test_state_dicts_give_the_counts_that_files_give(
    finding: Finding, from_states: Finding
) -> None:
    assert from_states.counts == finding.counts
    assert from_states.shares == pytest.approx(finding.shares)
    assert from_states.score is None  # there is no truth beside a state dict


def test_paths_may_be_texts(finding: Finding) -> None:
    texts = (str(SAMPLE / name) for name in ("g.pt", "c3.pt", "aux"))
    assert rlu_cli.attack(*texts, draws=200).counts == finding.counts


def test_a_file_and_a_state_dict_may_be_mixed(finding: Finding) -> None:
    mixed = rlu_cli.attack(_state("g.pt"), SAMPLE / "c3.pt", _images(), draws=200)
    assert mixed.counts == finding.counts


def test_wrapped_models_of_a_trainer_are_taken(from_states: Finding) -> None:
    before = {f"module.{name}": tensor for name, tensor in _state("g.pt").items()}
    after = {"model": _state("c3.pt")}
    assert rlu_cli.attack(before, after, _images(), **TOLD).counts == from_states.counts  # type: ignore[arg-type]


def test_arguments_are_the_source_of_their_settings(from_states: Finding) -> None:
    settings = from_states.case_finding.settings
    assert {settings[name].source for name in TOLD} == {"argument"}
    assert settings["seed"].source == "default"
    assert settings["model_args"].value == {"act": "relu"}


def test_what_is_left_out_is_looked_up_beside_the_files(finding: Finding) -> None:
    settings = finding.case_finding.settings
    assert settings["lr"].source == str(SAMPLE / "rlu.toml")
    assert settings["draws"].source == "argument"


def test_a_truth_may_be_a_path(from_states: Finding) -> None:
    truth = SAMPLE / "c3.truth.json"
    found = rlu_cli.attack(_state("g.pt"), _state("c3.pt"), _images(), **_told(truth=truth))
    assert found.score is not None
    assert found.case_finding.settings["truth"].value == str(truth)


def test_without_a_batch_size_there_are_shares_and_no_counts() -> None:
    untold = _told(batch_size=None)
    found = rlu_cli.attack(_state("g.pt"), _state("c3.pt"), _images(), **untold)
    assert found.counts is None
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.to_dict()["result"]["total"] is None
    assert "<table>" in found._repr_html_()


def test_several_methods_are_all_there_and_the_first_answers() -> None:
    found = rlu_cli.attack(
        _state("g.pt"), _state("c3.pt"), _images(), **_told(method=["path", "uniform"])
    )
    assert found.method == "path"
    assert [one.method for one in found.case_finding.methods] == ["path", "uniform"]


def test_progress_is_told() -> None:
    said: list[str] = []
    rlu_cli.attack(
        *(_state("g.pt"), _state("c3.pt"), _images()),
        progress=said.append,
        **_told(method="emulation", epochs=1, virtual_clients=6),
    )
    assert said
    assert all(isinstance(sentence, str) for sentence in said)


def test_an_expected_accuracy_that_cannot_be_made_is_a_warning_and_the_result_stays() -> None:
    found = rlu_cli.attack(
        *(_state("g.pt"), _state("c3.pt"), SAMPLE / "aux"),
        **_told(virtual_clients=2, aux_per_class=3),
    )
    assert found.counts is not None
    assert found.expected is None
    (warning,) = [w for w in found.warnings if w.code == "W330"]
    assert "E226" in warning.text


# attack: what is refused


@pytest.mark.parametrize("call", ["attack", "calibrate", "simulate"])
def test_an_unknown_argument_is_a_usage_error_with_a_guess(call: str, tmp_path: Path) -> None:
    given: dict[str, tuple[Any, ...]] = {
        "attack": (_state("g.pt"), _state("c3.pt"), "none"),
        "calibrate": (_state("g.pt"), "none"),
        "simulate": (tmp_path / "run",),
    }
    with pytest.raises(UsageError) as caught:
        getattr(rlu_cli, call)(*given[call], bach_size=8)
    assert caught.value.code == "E101"
    assert "bach_size" in caught.value.message
    assert "batch_size" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_wrong_value_is_called_by_the_arguments_name() -> None:
    with pytest.raises(UsageError) as caught:
        rlu_cli.attack(_state("g.pt"), _state("c3.pt"), "none", **_told(batch_size="many"))
    assert caught.value.code == "E101"
    assert "batch_size" in caught.value.message
    assert "--" not in caught.value.message


def test_what_is_missing_is_listed() -> None:
    with pytest.raises(rlu_cli.RluError) as caught:
        rlu_cli.attack(_state("g.pt"), _state("c3.pt"), "none")
    assert caught.value.code == "E102"
    assert {label for label, _ in caught.value.facts} == {"lr", "epochs"}


def test_a_file_that_is_not_there_is_an_input_error() -> None:
    with pytest.raises(InputError) as caught:
        rlu_cli.attack("g.pt", "c.pt", "aux")
    assert caught.value.code == "E201"


# Finding


@pytest.mark.parametrize(("method", "own"), [("rlu", False), ("pooled", True)])
def test_a_method_that_knows_no_error_is_judged_by_another(method: str, own: bool) -> None:
    told = _told(method=method)
    found = rlu_cli.attack(SAMPLE / "g.pt", SAMPLE / "c3.pt", SAMPLE / "aux", **told)
    assert found.first.recovery is not None
    assert (found.first.recovery.covariance is not None) == own
    assert found.first.credibility is not None
    assert found.first.credibility.own == own
    assert found.intervals is not None
    assert found.expected_iacc is not None
    assert found.expected_iacc[0] > 0.99
    assert found.verdict.level == "reliable"


def test_without_any_known_error_there_are_no_intervals(finding: Finding) -> None:
    unknown = replace(finding.first, credibility=None)
    found = replace(finding, case_finding=replace(finding.case_finding, methods=(unknown,)))
    assert found.intervals is None
    assert found.expected_iacc is None


def test_intervals_hold_the_counts_and_lie_within_what_there_is(finding: Finding) -> None:
    found = _with_error(finding, 0.02)
    assert found.intervals is not None
    assert found.counts is not None
    assert list(found.intervals) == list(found.classes)
    for name, (low, high) in found.intervals.items():
        assert 0 <= low <= found.counts[name] <= high <= 320
        assert isinstance(low, int)
        assert isinstance(high, int)


def test_a_larger_error_makes_wider_intervals(finding: Finding) -> None:
    narrow, wide = (_with_error(finding, deviation).intervals for deviation in (0.01, 0.1))
    assert narrow is not None
    assert wide is not None
    assert all(wide[name][1] >= narrow[name][1] for name in narrow)
    assert any(wide[name][1] > narrow[name][1] for name in narrow)


def test_intervals_are_those_of_shares_where_counts_are_not_known(finding: Finding) -> None:
    found = _with_error(finding, 0.02, batch_sizes=None)
    assert found.intervals is not None
    for name, (low, high) in found.intervals.items():
        assert 0 <= low <= found.shares[name] <= high <= 1


def test_warnings_are_those_of_update_methods_and_extra_parts(finding: Finding) -> None:
    of_update, of_method = FindingWarning("W302", "rounding"), FindingWarning("W312", "condition")
    extra = FindingWarning("W330", "no expected accuracy")
    methods = tuple(replace(m, warnings=(of_method,)) for m in finding.case_finding.methods)
    told = replace(finding.case_finding, warnings=(of_update,), methods=methods)
    found = replace(finding, case_finding=told, extra=(extra,))
    assert found.warnings == (of_update, of_method, extra)
    shown = found.to_dict()["warnings"]
    assert {warning["code"] for warning in shown} == {"W302", "W312", "W330"}


def test_a_finding_as_a_dict_is_json_with_the_same_counts(finding: Finding) -> None:
    content = finding.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert [row["count"] for row in content["result"]["counts"]] == COUNTS
    assert content["metrics"]["iacc"] == 1
    assert content == json.loads(finding.to_text("json"))


@pytest.mark.parametrize("name", FORMATS)
def test_a_finding_is_written_in_each_of_the_commands_formats(name: str, finding: Finding) -> None:
    assert "123" in finding.to_text(name)


def test_the_usual_text_is_the_table(finding: Finding) -> None:
    assert finding.to_text() == finding.to_text("table")
    assert "\x1b" not in finding.to_text()


def test_redacted_there_is_nothing_of_the_clients_labels(finding: Finding) -> None:
    rows = finding.to_dict(redact=True)["result"]["counts"]
    assert {row["count"] for row in rows} == {None}
    assert {row["share"] for row in rows} == {None}
    assert "123" not in finding.to_text(redact=True)
    assert finding.report(redact=True) != finding.report()


def test_a_notebook_shows_a_table_of_the_classes(finding: Finding) -> None:
    shown = finding._repr_html_()
    assert shown.count("<tr>") == 11
    assert "<td>123</td>" in shown
    assert "method: pooled" in shown
    assert finding.status.partition(":")[0] in shown


def test_class_names_in_a_notebook_are_escaped() -> None:
    names = ["<script>alert(1)</script>", "a & b", '"x"', *map(str, range(7))]
    found = rlu_cli.attack(_state("g.pt"), _state("c3.pt"), _images(*names), **_told(draws=50))
    assert list(found.shares) == names
    shown = found._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "a &amp; b" in shown


def test_warnings_in_a_notebook_are_escaped(finding: Finding) -> None:
    shown = replace(finding, extra=(FindingWarning("W330", "<b>no</b>"),))._repr_html_()
    assert "<b>" not in shown
    assert "W330" in shown


# calibrate


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    more = _told(draws=None, epochs=1, method=["path", "uniform"], virtual_clients=2)
    return rlu_cli.calibrate(_state("g.pt"), _images(), **more)


def test_a_calibration_has_one_expectation_for_each_method(calibration: Calibration) -> None:
    assert [expected.method for expected in calibration] == ["path", "uniform"]
    for expected in calibration:
        assert 0 <= expected.iacc <= 1
        assert len(expected.each) == 2
    path, uniform = calibration
    assert path.iacc > uniform.iacc


def test_a_calibration_as_a_dict_is_json(calibration: Calibration) -> None:
    content = calibration.to_dict()
    assert json.loads(json.dumps(content)) == content


def test_a_calibration_shows_itself_as_a_table(calibration: Calibration) -> None:
    shown = calibration._repr_html_()
    assert shown.count("<tr>") == 3
    assert "<td>path</td>" in shown


def test_arguments_of_a_calibration_are_the_source_of_their_settings(
    calibration: Calibration,
) -> None:
    assert calibration.case.settings["virtual_clients"].source == "argument"
    assert calibration.case.settings["alpha"].source == "default"


@pytest.mark.parametrize("count", [0, 1])
def test_a_calibration_takes_two_virtual_clients_or_more(count: int) -> None:
    with pytest.raises(UsageError) as caught:
        rlu_cli.calibrate(
            _state("g.pt"), _images(), lr=0.01, epochs=1, batch_size=8, virtual_clients=count
        )
    assert caught.value.code == "E101"
    assert "2" in caught.value.hint


# simulate


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> SimulatedFederation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated_images, "TRAIN_PER_CLASS", 10)
        patch.setattr(simulated_images, "TEST_PER_CLASS", 5)
        return rlu_cli.simulate(
            tmp_path_factory.mktemp("simulated") / "run<1>",
            clients=3,
            epochs=2,
            batch_size=8,
            aux_per_class=2,
            only_clients=[1],
        )


def test_a_simulation_gives_the_files_of_the_clients_trained_last(
    federation: SimulatedFederation,
) -> None:
    assert list(federation.clients) == [1]
    client = federation.clients[1]
    for path in (client.global_path, client.local_path, client.truth_path, federation.aux):
        assert path.exists()
        assert path.is_relative_to(federation.path)
    assert 0 <= federation.accuracy <= 1


def test_what_was_simulated_can_be_attacked(federation: SimulatedFederation) -> None:
    client = federation.clients[1]
    found = rlu_cli.attack(client.global_path, client.local_path, federation.aux, draws=200)
    assert found.counts is not None
    assert sum(found.counts.values()) == 16
    assert found.score is not None  # the truth beside it is found


def test_a_federation_shows_itself_with_its_path_escaped(federation: SimulatedFederation) -> None:
    shown = federation._repr_html_()
    assert "run&lt;1&gt;" in shown
    assert "run<1>" not in shown


def test_a_simulation_has_no_files_to_infer_a_rate_from(tmp_path: Path) -> None:
    with pytest.raises(rlu_cli.RluError) as caught:
        rlu_cli.simulate(tmp_path / "run", clients=2, lr="infer")
    assert caught.value.code in ("E101", "E102")


# open_checkpoint and score


def test_a_checkpoint_is_opened_from_a_text_a_path_or_a_state_dict() -> None:
    path = SAMPLE / "g.pt"
    opened = [rlu_cli.open_checkpoint(one) for one in (str(path), path, _state("g.pt"))]
    assert [one.format for one in opened] == ["torch-zip", "torch-zip", "in memory"]
    for one in opened:
        assert all(torch.equal(one.state[name], tensor) for name, tensor in _state("g.pt").items())


@pytest.mark.parametrize("source", ["file", "state dict"])
def test_a_checkpoint_over_the_limit_is_refused(source: str) -> None:
    given = SAMPLE / "g.pt" if source == "file" else _state("g.pt")
    with pytest.raises(InputError) as caught:
        rlu_cli.open_checkpoint(given, max_bytes=1000)
    assert caught.value.code == "E205"


Counts = Mapping[str, int] | list[int]


@pytest.mark.parametrize(
    ("counts", "truth"),
    [
        ([3, 7], [4, 6]),
        ({"cat": 3, "dog": 7}, {"cat": 4, "dog": 6}),
        ({"dog": 7, "cat": 3}, {"cat": 4, "dog": 6}),
    ],
)
def test_counts_are_scored_by_name_or_by_place(counts: Counts, truth: Counts) -> None:
    scored = rlu_cli.score(counts, truth)
    assert (scored.iacc, scored.cacc, scored.exact) == (0.9, 1.0, 0.0)


def test_a_class_that_a_dict_leaves_out_has_no_labels() -> None:
    scored = rlu_cli.score({"cat": 10}, {"dog": 10})
    assert (scored.iacc, scored.cacc, scored.exact) == (0, 0, 0)
    assert rlu_cli.score({"cat": 10}, {"cat": 10, "dog": 0}).exact == 1


@pytest.mark.parametrize(
    ("counts", "truth"),
    [
        ([1, 2], [1, 2, 0]),
        ({"cat": 1}, [1]),
        ([1], {"cat": 1}),
        ([0, 0], [0, 0]),
        ({"cat": 1}, {}),
        ([], []),
    ],
)
def test_counts_that_cannot_be_compared_are_refused(counts: Counts, truth: Counts) -> None:
    with pytest.raises(InputError) as caught:
        rlu_cli.score(counts, truth)
    assert caught.value.code == "E230"


# The package and its types


def test_importing_the_package_loads_neither_torch_nor_typer() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import rlu_cli; rlu_cli.RluError"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "rlu_cli" in loaded
    heavy = ("torch", "typer", "numpy", "scipy", "pydantic", "rich", "click")
    assert not [name for name in loaded if name.partition(".")[0] in heavy]


def test_every_public_name_is_there() -> None:
    assert {"attack", "calibrate", "simulate", "score", "open_checkpoint"} < set(rlu_cli.__all__)
    for name in rlu_cli.__all__:
        assert getattr(rlu_cli, name) is not None
        assert name in dir(rlu_cli)
    assert rlu_cli.Finding is Finding


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="atack"):
        rlu_cli.atack  # noqa: B018


@pytest.mark.parametrize(
    ("types", "command", "more"),
    [
        (AttackSettings, ATTACK, {"classes"}),
        (CalibrateSettings, CALIBRATE, {"classes"}),
        (SimulateSettings, SIMULATE, set()),
    ],
)
def test_the_types_name_every_setting_of_a_command_and_no_other(
    types: Any, command: str, more: set[str]
) -> None:
    names = {name.removesuffix("_") for name in types.__annotations__}
    assert names == (set(taken_by(command)) - {"output"}) | more
    assert types.__required_keys__ == frozenset()


CALLS = """
import rlu_cli

rlu_cli.attack("g.pt", "c.pt", "aux", {0}=8)
rlu_cli.calibrate("g.pt", "aux", {0}=8)
rlu_cli.simulate("run", {0}=8)
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
@pytest.mark.parametrize(("name", "wrong"), [("batch_size", 0), ("bach_size", 3)])
def test_a_type_checker_sees_a_misspelt_argument(name: str, wrong: int, tmp_path: Path) -> None:
    from mypy import api

    snippet = tmp_path / "snippet.py"
    snippet.write_text(CALLS.format(name), encoding="utf-8")
    package = ROOT / "rlu_cli"
    parts = ("attack", "calibrate", "simulate", "settings", "__init__")
    files = [package / "__init__.py", *(package / "api" / f"{part}.py" for part in parts)]
    # Other modules are skipped: reading all of torch's types would take a minute.
    options = ["--follow-imports=skip", "--ignore-missing-imports", "--config-file="]
    cache = f"--cache-dir={tmp_path / 'cache'}"
    out, err, _ = api.run([*options, cache, *map(str, files), str(snippet)])
    assert not err
    found = [line for line in out.splitlines() if "snippet.py" in line and ": error:" in line]
    assert len(found) == wrong, out
    assert all(f'"{name}"' in line for line in found)


def test_a_setting_of_another_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rlu_cli.RluError) as caught:
        rlu_cli.calibrate(SAMPLE / "g.pt", SAMPLE / "aux", truth="x.json")  # type: ignore[call-arg]
    assert caught.value.code == "E101"


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    rlu_cli.attack(SAMPLE / "g.pt", SAMPLE / "c3.pt", SAMPLE / "aux", draws=50)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_finding_shows_itself_in_a_line() -> None:
    finding = rlu_cli.attack(SAMPLE / "g.pt", SAMPLE / "c3.pt", SAMPLE / "aux", draws=50)
    assert repr(finding).startswith("<Finding by pooled: {'0': ")
    assert len(repr(finding)) < 400


@pytest.mark.parametrize(
    ("counts", "truth"), [({"a": 100}, {"a": 1}), ([-1, 2], [1, 0]), ([1.5], [1.5])]
)
def test_what_are_no_counts_of_the_same_labels_is_not_scored(counts: Any, truth: Any) -> None:
    with pytest.raises(rlu_cli.RluError) as caught:
        rlu_cli.score(counts, truth)
    assert caught.value.code == "E230"
