"""The user's own model: what is called, with what, and how it may fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from rlu_cli.errors import Exit, InputError
from rlu_cli.models import ARCHITECTURES, build_model, recognise

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
import torch

@dataclass
class Settings:
    width: int = 2

class Net(torch.nn.Linear):
    def __init__(self, width: int = Settings().width, *, num_classes: int = 10) -> None:
        super().__init__(width, num_classes)

def fixed():
    return torch.nn.Linear(3, 4)

def anything(**given):
    return torch.nn.Linear(3, given.get("num_classes", 6))

def handed_on(**given):
    return torch.nn.Linear(4, 5, **given)

def wrapped():
    return torch.nn.Sequential(torch.nn.Linear(3, 4))

def chatty():
    print("loading…")
    return torch.nn.Linear(1, 1)

def number():
    return 3

instance = torch.nn.Linear(1, 1)
constant = 3

def breaks():
    raise KeyError("no such thing")

def leaves():
    raise SystemExit(0)

def inside():
    return torch.nn.Linear(3)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; modules and paths that a test adds are taken back."""
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(params=["own.py:", "{folder}/own.py:", "own:"])
def own(folder: Path, request: pytest.FixtureRequest) -> str:
    (folder / "own.py").write_text(GOOD, encoding="utf-8")
    return str(request.param).format(folder=folder)


def refused(reference: str, **arguments: object) -> InputError:
    with pytest.raises(InputError) as caught:
        build_model(reference, arguments=arguments)
    assert caught.value.code == "E216"
    assert caught.value.exit_status is Exit.INPUT
    assert caught.value.hint
    assert "Traceback" not in str(caught.value)
    return caught.value


def shape(model: nn.Module) -> tuple[int, ...]:
    return tuple(next(model.parameters()).shape)


def test_a_class_gets_its_arguments_and_the_classes(own: str) -> None:
    assert shape(build_model(f"{own}Net")) == (10, 2)
    assert shape(build_model(f"{own}Net", classes=7)) == (7, 2)
    assert shape(build_model(f"{own}Net", classes=7, arguments={"width": 5})) == (7, 5)
    assert shape(build_model(f"{own}Net", classes=7, arguments={"num_classes": 3})) == (3, 2)


def test_classes_are_only_added_where_a_factory_takes_them(own: str) -> None:
    assert shape(build_model(f"{own}fixed", classes=7)) == (4, 3)
    assert shape(build_model(f"{own}anything", classes=7)) == (7, 3)
    assert shape(build_model(f"{own}handed_on", classes=7)) == (5, 4)
    assert shape(build_model(f"{own}handed_on", arguments={"bias": False}, classes=7)) == (5, 4)


def test_an_output_layer_is_rebuilt_as_wide_as_in_the_weights(own: str) -> None:
    state = {"net.0.weight": torch.ones(7, 3), "net.0.bias": torch.ones(7)}
    assert shape(build_model(f"{own}wrapped", classes=7, state=state)) == (7, 3)
    other = {"0.weight": torch.ones(7, 2)}
    assert shape(build_model(f"{own}wrapped", classes=7, state=other)) == (4, 3)


def test_what_the_code_prints_stays_out_of_the_report(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    build_model(f"{own}chatty")
    out, err = capsys.readouterr()
    assert out == ""
    assert "loading" in err


@pytest.mark.parametrize(
    ("attribute", "why", "line"),
    [
        ("breaks", "KeyError: 'no such thing'", 'raise KeyError("no such thing")'),
        ("leaves", "SystemExit: 0", "raise SystemExit(0)"),
        ("inside", "TypeError: ", "return torch.nn.Linear(3)"),
    ],
)
def test_a_failing_factory_is_told_with_its_place(
    own: str, folder: Path, attribute: str, why: str, line: str
) -> None:
    error = refused(f"{own}{attribute}")
    number = next(i for i, text in enumerate(GOOD.splitlines(), 1) if line in text)
    assert error.why.startswith(why)
    assert dict(error.facts)["at"].endswith(f"own.py:{number}")


def test_an_argument_the_factory_does_not_take(own: str) -> None:
    assert "colour" in refused(f"{own}Net", colour=3).why


@pytest.mark.parametrize("attribute", ["number", "instance", "constant"])
def test_what_is_or_gives_no_module_is_refused(own: str, attribute: str) -> None:
    assert refused(f"{own}{attribute}").message


def test_a_misspelt_attribute_is_answered_with_the_nearest(own: str) -> None:
    assert "did you mean fixed?" in refused(f"{own}fixd").hint


def test_a_misspelt_file_or_module_is_answered_with_the_nearest(folder: Path) -> None:
    (folder / "networks.py").write_text(GOOD, encoding="utf-8")
    package = folder / "zoo"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "resnets.py").write_text("")
    assert "did you mean networks.py?" in refused("network.py:Net").hint
    assert "did you mean networks?" in refused("netwrks:Net").hint
    assert "did you mean resnets?" in refused("zoo.resnet:Net").hint


@pytest.mark.parametrize(
    ("source", "why", "line"),
    [
        ("x = 1\nx = (\n", "SyntaxError", 2),
        ("x = 1\nimport not_installed_anywhere\n", "ModuleNotFoundError", 2),
        ("1 / 0\n", "ZeroDivisionError", 1),
    ],
)
@pytest.mark.parametrize("reference", ["broken.py:Net", "broken:Net"])
def test_code_that_does_not_import(
    folder: Path, reference: str, source: str, why: str, line: int
) -> None:
    (folder / "broken.py").write_text(source, encoding="utf-8")
    error = refused(reference)
    assert error.why.startswith(why)
    assert dict(error.facts)["at"].endswith(f"broken.py:{line}")


def test_a_message_cannot_write_to_the_terminal(folder: Path) -> None:
    (folder / "loud.py").write_text("raise ValueError('\\x1b[2Jgone\\nerror[E000]: forged')\n")
    shown = str(refused("loud.py:Net"))
    assert "\x1b" not in shown
    assert "\nerror[E000]" not in shown


def test_a_file_finds_its_neighbours_from_anywhere(folder: Path) -> None:
    away = folder / "away"
    away.mkdir()
    (away / "neighbouring_layers.py").write_text(GOOD, encoding="utf-8")
    (away / "top.py").write_text("from neighbouring_layers import Net\n")
    assert shape(build_model("away/top.py:Net")) == (10, 2)


def test_a_folder_with_a_colon_in_its_name(folder: Path) -> None:
    (folder / "a:b").mkdir()
    (folder / "a:b" / "own.py").write_text(GOOD, encoding="utf-8")
    assert shape(build_model("a:b/own.py:Net")) == (10, 2)


def test_a_file_in_the_working_directory_does_not_replace_an_installed_module(
    folder: Path,
) -> None:
    (folder / "cProfile.py").write_text("open('marker', 'w').close()\n")
    (folder / "own.py").write_text("import cProfile\n" + GOOD.replace("from __future__", "#"))
    sys.modules.pop("cProfile", None)
    build_model("own:fixed")
    assert not (folder / "marker").exists()


def test_code_runs_only_when_it_is_named(folder: Path) -> None:
    trap = "open('marker', 'w').close()\n"
    for name in ("lenet5", "torchvision", "timm", "hf", "models", "model"):
        (folder / f"{name}.py").write_text(trap + GOOD.replace("from __future__", "#"))
    state = ARCHITECTURES["lenet5"].build().state_dict()
    build_model("lenet5", state=state)
    recognise(state)
    for reference in ("lenet5.py", "model", "model.py", "timm:Net", "hf:Net", "torchvision:Net"):
        named = reference.partition(":")[0]
        with pytest.raises(Exception, match="transformers|hf" if named == "hf" else named):
            build_model(reference)
    assert not (folder / "marker").exists()
    build_model("model.py:Net")
    assert (folder / "marker").exists()
