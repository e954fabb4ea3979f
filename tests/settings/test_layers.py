"""Values of several ranks → one value and one source for each setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlu_cli.errors import RluError, UsageError
from rlu_cli.settings.layers import (
    FLAG,
    Layer,
    contradictions,
    environment_layer,
    flag_layer,
    option_of,
    require,
    resolve,
)
from rlu_cli.settings.specs import ALL, ATTACK, CALIBRATE, SIMULATE
from rlu_cli.settings.table import SETTINGS
from rlu_cli.types import Setting


def _layer(source: str, /, **values: object) -> Layer:
    return Layer({name: Setting(value, source) for name, value in values.items()})


def _beside(folder: Path, /, **values: object) -> Layer:
    """What a file in `folder`, beside the inspected files, says."""
    source = str(folder / "rlu.toml")
    settings = {name: Setting(value, source) for name, value in values.items()}
    return Layer(settings, trusted=False, folder=folder)


def _refusal(*layers: Layer, command: str = ATTACK) -> UsageError:
    with pytest.raises(UsageError) as caught:
        resolve(layers, command)
    return caught.value


def test_the_first_layer_that_says_it_counts() -> None:
    found = resolve([_layer("one", seed=1), _layer("two", seed=2, epochs=3)], ATTACK)
    assert found["seed"] == Setting(1, "one")
    assert found["epochs"] == Setting(3, "two")


def test_files_that_disagree_contradict_each_other() -> None:
    layers = [_layer("a", lr=0.1, seed=1), _layer("b", lr="0.1"), _layer("c", lr=0.2, seed=2)]
    found = resolve(layers, ATTACK)
    assert found["lr"].contradicted == (Setting(0.2, "c"),)
    assert contradictions(found) == ["contradiction in lr: 0.1 is used, from a; c has 0.2"]


@pytest.mark.parametrize("source", [FLAG, "RLU_LR"])
def test_what_the_user_typed_needs_no_explanation(source: str) -> None:
    found = resolve([_layer(source, lr=0.1), _layer("b", lr=0.2), _layer("c", lr=[])], ATTACK)
    assert contradictions(found) == []


def test_what_no_layer_says_has_its_default() -> None:
    found = resolve([], ATTACK)
    assert found["seed"] == Setting(0, "default")
    assert {setting.source for setting in found.values()} == {"default"}
    assert "lr" not in found
    assert "epochs" not in found


@pytest.mark.parametrize("command", ALL)
def test_every_default_of_a_command_is_there(command: str) -> None:
    found = resolve([], command)
    for name, spec in SETTINGS.items():
        if command in spec.commands:
            default = spec.default_of(command)
            assert (found[name].value if name in found else None) == default, name


def test_each_command_has_its_own_defaults() -> None:
    assert resolve([], SIMULATE)["lr"].value == 0.01
    assert resolve([], SIMULATE)["normalize"].value == "half"
    assert resolve([], ATTACK)["normalize"].value == "auto"
    assert resolve([], ATTACK)["virtual_clients"].value == 0
    assert resolve([], CALIBRATE)["virtual_clients"].value == 16


def test_values_are_parsed_whatever_their_layer() -> None:
    found = resolve([_layer("flag", lr="0.5", method="rlu,path", joint="yes")], ATTACK)
    assert found["lr"].value == 0.5
    assert found["method"].value == ("rlu", "path")
    assert found["joint"].value is True


def test_settings_of_another_command_are_passed_over_without_a_look() -> None:
    found = resolve([_layer("file", clients="many", noise=-1, topk=7, keep="none")], ATTACK)
    assert not {"clients", "noise", "topk", "keep"} & set(found)
    assert "method" not in resolve([_layer("file", method="nonsense")], SIMULATE)


def test_both_audits_share_their_settings() -> None:
    found = resolve([_layer("file", truth="t.json", draws=5, classes=["a", "b"])], CALIBRATE)
    assert found["draws"].value == 5
    assert found["classes"].value == ("a", "b")
    assert resolve([_layer("file", alpha=2)], ATTACK)["alpha"].value == 2.0


def test_class_names_mean_nothing_to_a_simulation() -> None:
    assert "classes" not in resolve([_layer("file", classes=["a"])], SIMULATE)


@pytest.mark.parametrize("command", ALL)
def test_an_unknown_name_is_refused_with_a_guess(command: str) -> None:
    error = _refusal(_layer("a file", batchsize=3), command=command)
    assert error.code == "E101"
    assert "batchsize" in error.message
    assert "a file" in error.message
    assert "batch_size" in error.hint


def test_a_name_like_no_other_is_told_all_of_them() -> None:
    hint = _refusal(_layer("a file", zzzzzz=3)).hint
    assert all(name in hint for name in SETTINGS)


def test_an_unknown_name_is_shown_without_its_control_characters() -> None:
    assert "\x1b" not in str(_refusal(_layer("a file", **{"\x1b[31m": 1})))


def test_an_unknown_name_is_refused_even_where_a_higher_layer_says_everything() -> None:
    assert _refusal(_layer("flag", lr=1), _layer("a file", lrr=2)).code == "E101"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("epochs", 0, "whole number"),
        ("lr", "fast", "above 0"),
        ("confidence", 1, "0.999"),
        ("optimizer", "lion", "adamw"),
        ("joint", "maybe", "true or false"),
        ("truth", "", "text"),
        ("method", "nonsense", "rlu"),
        ("lr_schedule", "step", "cosine"),
    ],
)
def test_an_impossible_value_is_refused_with_what_is_expected(
    name: str, value: object, expected: str
) -> None:
    error = _refusal(_layer("a file", **{name: value}))
    assert error.code == "E101"
    assert name in error.message
    assert "a file" in error.message
    assert expected in error.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("method", [["rlu"]]), ("method", [{"rlu": 1}]), ("lr_schedule", "step:inf:0.5")],
)
def test_whatever_a_file_says_the_refusal_is_one_a_user_can_act_on(
    name: str, value: object
) -> None:
    assert _refusal(_layer("a file", **{name: value})).code == "E101"


def test_an_overruled_value_is_not_checked() -> None:
    found = resolve([_layer("flag", epochs=2), _layer("file", epochs="none")], ATTACK)
    assert found["epochs"] == Setting(2, "flag")


@pytest.mark.parametrize(
    ("source", "said"),
    [("flag", "--batch-size"), ("argument", "batch_size"), ("RLU_BATCH_SIZE", "RLU_BATCH_SIZE")],
)
def test_a_setting_is_called_as_its_source_writes_it(source: str, said: str) -> None:
    assert said in _refusal(_layer(source, batch_size=0)).message


def test_an_option_is_named_as_it_is_typed() -> None:
    assert option_of("batch_size") == "--batch-size"
    assert option_of("model_args") == "--model-arg"
    assert option_of("drop_last") == "--drop-last"
    assert option_of("lambda") == "--lambda"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_option_begins_the_way_to_give_it(name: str) -> None:
    if SETTINGS[name].commands:
        assert SETTINGS[name].give.startswith(option_of(name))


# Flags, keyword arguments and environment variables.


def test_what_was_not_typed_is_no_value() -> None:
    layer = flag_layer({"lr": None, "method": [], "betas": (), "seed": 0, "joint": False})
    assert layer.values == {"seed": Setting(0, "flag"), "joint": Setting(False, "flag")}
    assert layer.trusted
    assert layer.folder == Path.cwd()


def test_arguments_of_a_function_say_that_they_are() -> None:
    assert flag_layer({"lr": 1}, "argument").values["lr"].source == "argument"


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_variable(name: str) -> None:
    layer = environment_layer({f"RLU_{name.upper()}": "1"})
    assert layer.values == {name: Setting("1", f"RLU_{name.upper()}")}
    assert layer.trusted


def test_other_and_empty_variables_say_nothing() -> None:
    assert (
        environment_layer({"RLU_LR": "", "LR": "1", "RLU_DEBUG": "1", "rlu_lr": "1"}).values == {}
    )


def test_a_variable_set_after_the_import_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLU_LR", "0.125")
    assert environment_layer().values["lr"] == Setting("0.125", "RLU_LR")
    monkeypatch.delenv("RLU_LR")
    assert "lr" not in environment_layer().values


# Paths.


@pytest.mark.parametrize("name", [name for name, spec in SETTINGS.items() if spec.path])
def test_a_relative_path_starts_in_the_folder_of_the_file_that_names_it(
    name: str, tmp_path: Path
) -> None:
    command = SIMULATE if name == "init" else ATTACK
    layer = Layer({name: Setting("sub/file", "a file")}, folder=tmp_path)
    assert resolve([layer], command)[name].value == str(tmp_path / "sub" / "file")


def test_a_whole_path_is_taken_as_it_is(tmp_path: Path) -> None:
    whole = str(tmp_path / "truth.json")
    layer = Layer({"truth": Setting(whole, "a file")}, folder=tmp_path / "elsewhere")
    assert resolve([layer], ATTACK)["truth"].value == whole


def test_a_typed_path_starts_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layer = flag_layer({"truth": "../truth.json"})
    assert Path(resolve([layer], ATTACK)["truth"].value) == tmp_path / ".." / "truth.json"


def test_a_model_is_no_path(tmp_path: Path) -> None:
    layer = Layer({"model": Setting("lenet5", "a file")}, folder=tmp_path)
    assert resolve([layer], ATTACK)["model"].value == "lenet5"


# A file beside what is inspected is not the user.


@pytest.mark.parametrize(("name", "value"), [("output", "report.json"), ("max_bytes", 2**40)])
def test_no_output_and_no_limit_from_beside(name: str, value: object, tmp_path: Path) -> None:
    error = _refusal(_beside(tmp_path, **{name: value}))
    assert error.code == "E105"
    assert name in error.message
    assert str(tmp_path) in error.message
    assert SETTINGS[name].give in error.hint


@pytest.mark.parametrize("model", ["evil.py:Net", "evil:Net", "/x/evil.py:Net", "os:mkdir"])
def test_no_code_from_beside(model: str, tmp_path: Path) -> None:
    error = _refusal(_beside(tmp_path, model=model))
    assert error.code == "E105"
    assert "run code" in error.why
    assert "--model" in error.hint


@pytest.mark.parametrize("name", ["truth", "history"])
@pytest.mark.parametrize("value", ["../x", "/etc/passwd", "sub/../../x", "link/x"])
def test_no_path_outside_its_folder_from_beside(name: str, value: str, tmp_path: Path) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    error = _refusal(_beside(folder, **{name: value}))
    assert error.code == "E105"
    assert "outside" in error.why


def test_a_path_with_a_null_byte_from_beside_is_refused_like_any_other(tmp_path: Path) -> None:
    with pytest.raises(RluError) as caught:
        resolve([_beside(tmp_path, truth="\x00")], ATTACK)
    assert caught.value.code in ("E101", "E105")


@pytest.mark.parametrize("value", ["truth.json", "./truth.json", "sub/../truth.json"])
def test_a_path_inside_is_taken(value: str, tmp_path: Path) -> None:
    found = resolve([_beside(tmp_path, truth=value)], ATTACK)
    assert Path(found["truth"].value).resolve() == tmp_path / "truth.json"


def test_other_settings_from_beside_are_taken(tmp_path: Path) -> None:
    found = resolve([_beside(tmp_path, lr=0.1, model="lenet5", model_args={"act": "silu"})], ATTACK)
    assert found["lr"] == Setting(0.1, str(tmp_path / "rlu.toml"))
    assert found["model"].value == "lenet5"
    assert found["model_args"].value == {"act": "silu"}


@pytest.mark.parametrize(
    ("name", "value", "typed"),
    [
        ("output", "report.json", "mine.json"),
        ("max_bytes", 2**40, 10),
        ("model", "evil.py:Net", "lenet5"),
        ("truth", "../x", "mine.json"),
    ],
)
def test_what_the_user_says_too_is_no_refusal(
    name: str, value: object, typed: object, tmp_path: Path
) -> None:
    flags = flag_layer({name: typed})
    assert resolve([flags, _beside(tmp_path, **{name: value})], ATTACK)[name].source == "flag"


def test_unsafe_settings_of_another_command_are_passed_over(tmp_path: Path) -> None:
    assert "init" not in resolve([_beside(tmp_path, init="/etc/passwd")], ATTACK)
    assert "output" not in resolve([_beside(tmp_path, output="x")], SIMULATE)


@pytest.mark.parametrize("own", ["net.py:Net", "package.module:Net"])
def test_the_users_own_code_gets_its_arguments_from_the_user_alone(
    own: str, tmp_path: Path
) -> None:
    beside = _beside(tmp_path, model_args={"path": "/"})
    error = _refusal(flag_layer({"model": own}), beside)
    assert error.code == "E105"
    assert "model_args" in error.message
    assert "--model-arg" in error.hint
    flags = flag_layer({"model": own, "model_args": ["size=3"]})
    assert resolve([flags, beside], ATTACK)["model_args"] == Setting({"size": 3}, "flag")


def test_a_named_architecture_takes_arguments_from_beside(tmp_path: Path) -> None:
    beside = _beside(tmp_path, model_args={"act": "silu"})
    found = resolve([flag_layer({"model": "lenet5"}), beside], ATTACK)
    assert found["model_args"].value == {"act": "silu"}


def test_a_file_of_the_users_own_may_say_all_of_it(tmp_path: Path) -> None:
    said = {"output": "o", "max_bytes": 5, "model": "net.py:Net", "truth": "/t", "model_args": {}}
    layer = Layer({n: Setting(v, "mine") for n, v in said.items()}, folder=tmp_path)
    found = resolve([layer], ATTACK)
    assert found["output"].value == str(tmp_path / "o")
    assert found["model"].value == "net.py:Net"


# What is missing.


def test_nothing_is_missing_where_all_is_given() -> None:
    require({"lr": Setting(1, "flag")}, ["lr"], ["a note"])


def test_all_that_is_missing_is_listed_with_how_to_give_it() -> None:
    with pytest.raises(UsageError) as caught:
        require({"lr": Setting(1, "flag")}, ["lr", "epochs", "lambda"], ["counters say 7"])
    error = caught.value
    assert error.code == "E102"
    assert "epochs, lambda" in error.message
    assert dict(error.facts) == {
        "epochs": SETTINGS["epochs"].give,
        "lambda": SETTINGS["lambda"].give,
        "note": "counters say 7",
    }
    assert "rlu.toml" in error.hint


def test_one_missing_setting_is_singular() -> None:
    with pytest.raises(UsageError, match="missing setting:"):
        require({}, ["lr"], ())


def test_a_folder_of_a_model_is_taken_from_the_file_that_names_it(tmp_path: Path) -> None:
    inside = resolve([_beside(tmp_path, model="hf:vit")], ATTACK)
    assert inside["model"].value == f"hf:{tmp_path / 'vit'}"
    assert resolve([_layer("flag", model="hf:vit")], ATTACK)["model"].value == "hf:vit"
    for elsewhere in ("hf:/etc", "hf:../vit"):
        assert _refusal(_beside(tmp_path, model=elsewhere)).code == "E105"
    known = resolve([_beside(tmp_path, model="torchvision:resnet18")], ATTACK)
    assert known["model"].value == "torchvision:resnet18"
