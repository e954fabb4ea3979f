"""What the user gave → a case, checked once: from files, and from state dicts in memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_case import CLASSES, COUNTS, SAMPLE, State, blank_images, sample_states

from rlu_cli.case.build import Case, build_case, build_study, open_sources
from rlu_cli.case.round_history import RoundHistory
from rlu_cli.checkpoints import IN_MEMORY
from rlu_cli.errors import RluError
from rlu_cli.models.input_scaling import AUX, PRESETS
from rlu_cli.settings.layers import flag_layer
from rlu_cli.settings.parsers import INFER
from rlu_cli.types import Setting

TOLD = {"lr": 0.01, "epochs": 10, "batch_size": 32}
IMAGES = blank_images()

pytestmark = pytest.mark.usefixtures("work")


def _case(before: Any, after: Any, aux: Any = IMAGES, /, **flags: Any) -> Case:
    return build_case(before, after, aux, flag_layer({**TOLD, **flags}))


def _sample(**flags: Any) -> Case:
    return _case(*sample_states(), **flags)


def _refusal(before: Any, after: Any, aux: Any = IMAGES, /, **flags: Any) -> RluError:
    with pytest.raises(RluError) as caught:
        _case(before, after, aux, **flags)
    return caught.value


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The sample's round as `rlu simulate` would have written it."""
    folder = tmp_path / "run" / "r000"
    folder.mkdir(parents=True)
    for file in ("g.pt", "c3.pt", "c3.truth.json"):
        shutil.copy(SAMPLE / file, folder / file)
    (folder / "round.json").write_text("{}", encoding="utf-8")
    return folder


def _of_run(run: Path, **flags: Any) -> Case:
    return _case(run / "g.pt", run / "c3.pt", **flags)


# State dicts in memory.


def test_two_state_dicts_and_a_few_settings_are_a_case() -> None:
    case = _sample()
    assert case.layer == case.pair.layer == "fc3"
    assert case.plan.steps == 10
    assert case.plan.total == 320
    assert case.settings["lr"] == Setting(0.01, "flag")
    assert case.value("seed") == 0
    assert case.value("truth") is None
    assert {checkpoint.format for checkpoint in case.pair} == {IN_MEMORY}
    assert case.auxiliary is IMAGES
    assert case.history == RoundHistory()
    assert case.velocity is None
    assert (case.truth, case.truth_path, case.notes) == (None, None, ())


def test_the_pair_keeps_which_is_which() -> None:
    before, after = sample_states()
    case = _sample()
    assert torch.equal(case.pair.before.state["fc3.bias"], before["fc3.bias"])
    assert torch.equal(case.pair.after.state["fc3.bias"], after["fc3.bias"])
    assert "global" in str(case.pair.before.path)
    assert "local" in str(case.pair.after.path)


def test_what_keys_and_shapes_leave_open_are_hypotheses() -> None:
    case = _sample()
    assert {one.model for one in case.hypotheses} == {"lenet5"}
    assert len({one.normalise for one in case.hypotheses}) == len(PRESETS) + 1
    assert AUX not in {one.normalise for one in case.hypotheses}  # its numbers instead
    assert sum(one.prior for one in case.hypotheses) == pytest.approx(1)
    assert len({one.arguments["act"] for one in case.hypotheses}) > 1


def test_what_is_told_leaves_one_hypothesis() -> None:
    case = _sample(model="lenet5", model_args={"act": "relu"}, normalize="half")
    (one,) = case.hypotheses
    assert (one.model, dict(one.arguments), one.normalise) == ("lenet5", {"act": "relu"}, "half")


def test_a_scaling_alone_leaves_the_activations_open() -> None:
    assert {one.normalise for one in _sample(normalize="0.1/0.3").hypotheses} == {"0.1/0.3"}


def test_the_steps_follow_from_the_settings() -> None:
    case = _sample(epochs=2, samples=70, batch_size=32)
    assert case.plan.batch_sizes == (32, 32, 6, 32, 32, 6)
    assert case.plan.passes == 2


def test_without_a_batch_size_there_is_no_total() -> None:
    assert _sample(batch_size=None).plan.total is None


def test_state_dicts_have_no_files_beside_them_but_the_working_directory_counts(
    work: Path,
) -> None:
    (work / "rlu.toml").write_text("seed = 3")
    assert _sample().settings["seed"] == Setting(3, str(work / "rlu.toml"))


# Files.


def test_files_have_their_settings_and_truth_beside_them() -> None:
    case = build_case(SAMPLE / "g.pt", SAMPLE / "c3.pt", IMAGES, flag_layer({}))
    assert case.plan.total == 320
    assert case.settings["lr"] == Setting(0.01, str(SAMPLE / "rlu.toml"))
    assert case.truth is not None
    assert case.truth.tolist() == COUNTS
    assert case.truth_path == SAMPLE / "c3.truth.json"
    assert case.notes == ()


def test_a_file_and_a_state_dict_may_be_mixed() -> None:
    before, _ = sample_states()
    case = _case(before, SAMPLE / "c3.pt")
    assert case.pair.before.format == IN_MEMORY
    assert case.pair.after.path == SAMPLE / "c3.pt"
    assert torch.equal(case.pair.update.weight, _sample().pair.update.weight)


def test_the_limit_counts_for_files_and_for_state_dicts() -> None:
    for sources in ((SAMPLE / "g.pt", SAMPLE / "c3.pt"), sample_states()):
        assert _refusal(sources[0], sources[1], max_bytes=1000).code == "E205"


def test_one_source_is_both_sides() -> None:
    pair, settings = open_sources((sample_states()[0],), flag_layer(TOLD))
    assert pair.before is pair.after
    assert settings["epochs"].value == 10


# Images.


def test_noise_stands_in_for_images_of_the_models_size() -> None:
    case = _case(*sample_states(), "none")
    assert case.auxiliary.source == "none"
    assert case.auxiliary.images.shape[1:] == (3, 32, 32)
    assert case.auxiliary.class_names == CLASSES


def test_images_are_read_in_the_models_size() -> None:
    case = _case(*sample_states(), str(SAMPLE / "aux"), aux_per_class=2)
    assert case.auxiliary.images.shape == (20, 3, 32, 32)
    assert case.auxiliary.class_names == CLASSES


def test_images_of_other_classes_are_refused() -> None:
    error = _refusal(*sample_states(), blank_images(7))
    assert error.code == "E221"
    assert "7" in error.message
    assert "10" in error.message


def test_noise_takes_the_names_that_are_told(work: Path) -> None:
    names = [f"class {n}" for n in range(10)]
    (work / "rlu.toml").write_text(f"classes = {json.dumps(names)}")
    assert _case(*sample_states(), "none").auxiliary.class_names == tuple(names)
    (work / "rlu.toml").write_text(f"classes = {json.dumps(names[:9])}")
    assert _refusal(*sample_states(), "none").code == "E221"


def test_images_that_are_not_there_are_named() -> None:
    error = _refusal(*sample_states(), "gone")
    assert error.code == "E220"
    assert "gone" in str(error)


# What does not go together.


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(RluError) as caught:
        build_case(*sample_states(), IMAGES, flag_layer({"samples": 320}))
    assert caught.value.code == "E102"
    assert {label for label, _ in caught.value.facts} == {"lr", "epochs", "batch_size"}


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert _refusal(*sample_states(), nesterov=True).code == "E106"


def test_two_models_of_one_kind_that_are_the_same_give_nothing_away() -> None:
    before, _ = sample_states()
    assert _refusal(before, dict(before)).code == "E213"


def test_the_pair_is_checked_before_any_image_is_read() -> None:
    before, _ = sample_states()
    assert _refusal(before, dict(before), "gone").code == "E213"


def test_two_models_of_different_kinds_are_refused() -> None:
    before, after = sample_states()
    del after["fc1.bias"]
    error = _refusal(before, after)
    assert error.code == "E212"
    assert "fc1.bias" in str(error)


def test_a_layer_that_is_not_there_is_refused() -> None:
    error = _refusal(*sample_states(), layer="fc9")
    assert error.code == "E210"
    assert "--layer" in error.hint


def test_another_layer_may_be_named() -> None:
    assert _case(*sample_states(), blank_images(84), layer="fc2").layer == "fc2"


def test_weights_of_no_known_architecture_are_refused_with_a_way_out() -> None:
    states: list[State] = [
        {"body.weight": torch.ones(4, 3), "head.weight": torch.full((2, 4), end)}
        for end in (1.0, 2.0)
    ]
    error = _refusal(states[0], states[1], blank_images(2))
    assert error.code == "E215"
    assert "--model" in error.hint


def test_a_misspelt_architecture_is_refused_as_such_where_noise_has_to_fit_it() -> None:
    assert _refusal(*sample_states(), "none", model="lenet6").code == "E101"


def _heads() -> tuple[State, State]:
    before, after = ({n: t for n, t in s.items() if n.startswith("fc3.")} for s in sample_states())
    return before, after


def test_bare_output_layers_cannot_be_run() -> None:
    error = _refusal(*_heads())
    assert error.code == "E215"
    assert "fc3" in error.message
    assert "--keep all" in error.hint


def test_a_bare_layer_may_be_a_model_of_the_users_own(work: Path) -> None:
    code = "import torch\n\nclass Net(torch.nn.Sequential):\n    def __init__(self):\n"
    code += "        super().__init__()\n        self.fc3 = torch.nn.Linear(84, 10)\n"
    (work / "net.py").write_text(code)
    assert _case(*_heads(), model="net.py:Net").layer == "fc3"


def test_a_model_that_is_one_nameless_layer_is_no_cut_down_one() -> None:
    states = [{"weight": torch.full((2, 12), end), "bias": torch.zeros(2)} for end in (1.0, 2.0)]
    error = _refusal(states[0], states[1], blank_images(2))
    assert error.code == "E215"
    assert "known architecture" in error.message


# The truth.


def test_the_truth_beside_a_client_of_a_run_is_found(run: Path) -> None:
    case = _of_run(run)
    assert case.truth is not None
    assert case.truth.tolist() == COUNTS
    assert case.truth_path == run / "c3.truth.json"


def test_a_truth_beside_a_file_that_is_in_no_run_is_not_taken(run: Path) -> None:
    (run / "round.json").unlink()
    assert _of_run(run).truth is None


def test_a_truth_that_is_a_link_to_elsewhere_is_not_taken(run: Path, tmp_path: Path) -> None:
    shutil.move(run / "c3.truth.json", tmp_path / "secret.json")
    (run / "c3.truth.json").symlink_to(tmp_path / "secret.json")
    assert _of_run(run).truth is None


@pytest.mark.parametrize("text", ["[1, 2, 3]", "[32, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "no truth"])
def test_a_truth_found_unasked_that_does_not_fit_is_a_note(text: str, run: Path) -> None:
    (run / "c3.truth.json").write_text(text)
    case = _of_run(run)
    assert case.truth is None
    assert case.truth_path is None
    (note,) = case.notes
    assert note.startswith("not scored: ")
    assert "c3.truth.json" in note


@pytest.mark.parametrize(
    ("text", "code"), [("[1, 2, 3]", "E230"), ("no truth", "E104"), (None, "E201")]
)
def test_a_truth_that_was_named_has_to_fit(
    text: str | None, code: str, run: Path, work: Path
) -> None:
    if text is not None:
        (work / "mine.json").write_text(text)
    assert _refusal(run / "g.pt", run / "c3.pt", truth="mine.json").code == code


def test_a_truth_that_was_named_goes_before_the_one_beside(run: Path, work: Path) -> None:
    (work / "mine.json").write_text(json.dumps([320] + [0] * 9))
    case = _of_run(run, truth="mine.json")
    assert case.truth is not None
    assert case.truth.tolist() == [320] + [0] * 9
    assert case.truth_path == work / "mine.json"


def test_a_state_dict_can_be_scored_against_a_named_truth() -> None:
    case = _sample(truth=str(SAMPLE / "c3.truth.json"))
    assert case.truth is not None
    assert case.truth.tolist() == COUNTS


# Earlier rounds.


def test_a_history_that_is_not_there_is_refused_whatever_the_scheme() -> None:
    for flags in ({}, {"scheme": "scaffold"}):
        error = _refusal(*sample_states(), history="gone", **flags)
        assert error.code == "E231"
        assert "gone" in error.message


def test_a_history_whose_name_is_too_long_is_refused_like_any_other_that_is_not_there() -> None:
    assert _refusal(*sample_states(), history="x" * 300).code == "E231"


def test_a_scheme_with_memory_begins_with_no_memory(run: Path) -> None:
    case = _of_run(run, history=str(run.parent), scheme="scaffold")
    assert case.history.past == ()


def test_momentum_begins_with_the_buffer_in_the_global_file(run: Path) -> None:
    before, _ = sample_states()
    buffers = {n: {"momentum_buffer": torch.full_like(t, 2)} for n, t in enumerate(before.values())}
    torch.save({"model": before, "optimizer": {"state": buffers}}, run / "g.pt")
    assert _of_run(run).velocity is None
    velocity = _of_run(run, momentum=0.9).velocity
    assert velocity is not None
    assert velocity.bias is not None
    assert set(velocity.weight.flatten().tolist()) == set(velocity.bias.tolist()) == {2}


def test_momentum_without_a_buffer_begins_at_rest(run: Path) -> None:
    assert _of_run(run, momentum=0.9).velocity is None
    assert _of_run(run, momentum=0.9, history=str(run.parent)).velocity is None


# The global model alone.


def _study(source: Any = None, aux: Any = IMAGES, **flags: Any) -> Case:
    given = sample_states()[0] if source is None else source
    return build_study(given, aux, flag_layer({**TOLD, **flags}))


def test_a_study_has_the_global_model_on_both_sides() -> None:
    case = _study()
    assert case.pair.before is case.pair.after
    assert case.layer == "fc3"
    assert case.value("virtual_clients") == 16
    assert (case.truth, case.velocity) == (None, None)


def test_a_study_of_a_file_reads_the_settings_beside_it() -> None:
    case = build_study(SAMPLE / "g.pt", IMAGES, flag_layer({}))
    assert case.plan.total == 320
    assert case.truth is None


def test_a_study_has_to_know_how_clients_train() -> None:
    with pytest.raises(RluError) as caught:
        build_study(sample_states()[0], IMAGES, flag_layer({"samples": 5}))
    assert caught.value.code == "E102"
    assert {label for label, _ in caught.value.facts} == {"lr", "epochs", "batch_size"}


def test_a_study_takes_no_rate_from_a_client_that_is_not_there() -> None:
    with pytest.raises(RluError) as caught:
        _study(lr=INFER)
    assert caught.value.code == "E102"


def test_a_study_needs_no_history_of_a_scheme_with_memory() -> None:
    assert _study(scheme="scaffold").history == RoundHistory()


def test_a_study_refuses_a_bare_output_layer_and_other_images() -> None:
    with pytest.raises(RluError) as caught:
        _study(_heads()[0])
    assert caught.value.code == "E215"
    with pytest.raises(RluError) as caught:
        _study(aux=blank_images(3))
    assert caught.value.code == "E221"
