"""`--method`: several methods on one update, side by side, and what each cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import Command, World

from rlu_cli.attacks import ATTACKS


def test_methods_side_by_side(rlu: Command, world: World) -> None:
    methods = ["--method", "rlu", "--method", "irlg", "--method", "llg+"]
    result = rlu("attack", *world.pair, "--aux", world.aux, *world.told, *methods)
    assert result.status == 0, result.err
    for title in ("RLU", "iRLG", "LLG+"):
        assert title in result.out
    assert f"{sum(world.counts)} labels recovered" in result.out


def test_every_method_in_json_is_what_it_is_alone(rlu: Command, world: World) -> None:
    words = ["attack", *world.pair, "--aux", world.aux, *world.told, "--format", "json"]
    both = rlu(*words, "--method", "zlg+", "--method", "ebi").report
    alone = rlu(*words, "--method", "ebi").report
    assert [m["method"] for m in both["methods"]] == ["zlg+", "ebi"]
    assert both["result"] == both["methods"][0]["result"]
    assert both["methods"][1]["result"] == alone["result"]


def test_all_is_every_method_that_trains_nothing(rlu: Command, world: World) -> None:
    words = ["attack", *world.pair, "--aux", world.aux, *world.told, "--format", "json"]
    report = rlu(*words, "--method", "all").report
    expected = [name for name, method in ATTACKS.items() if not method.trains]
    assert [m["method"] for m in report["methods"]] == expected
    for method in report["methods"]:
        assert sum(row["count"] for row in method["result"]["counts"]) == sum(world.counts)
        marked = [row["present"] for row in method["result"]["counts"]]
        assert (None not in marked) == (method["result"]["gives"] == "set")


def test_a_set_is_marked_and_said(rlu: Command, world: World) -> None:
    methods = ["--method", "idlg", "--method", "uniform"]
    result = rlu("attack", *world.pair, "--aux", world.aux, *world.told, *methods)
    assert "* in the set of classes found" in result.out
    assert "iDLG: it gives a set of classes" in result.out


def test_virtual_clients(rlu: Command, world: World) -> None:
    words = [*world.told, "--method", "ramakrishna-dan-virtual", "--format", "json"]
    report = rlu("attack", *world.pair, "--aux", world.aux, *words).report
    assert sum(row["count"] for row in report["result"]["counts"]) == sum(world.counts)


@pytest.mark.parametrize("told", [["--optimizer", "adam"], ["--clip", "1"]])
def test_only_virtual_clients_serve_a_client_that_is_not_linear(
    rlu: Command, world: World, told: list[str]
) -> None:
    words = ["attack", *world.pair, "--aux", world.aux, *world.told, *told]
    alone = rlu(*words, "--method", "rlu")
    assert alone.status == 2
    assert "E108" in alone.err
    assert "ramakrishna-dan-virtual" in alone.err
    methods = ["--method", "rlu", "--method", "ramakrishna-dan-virtual"]
    report = rlu(*words, *methods, "--format", "json").report
    first, second = report["methods"]
    assert first["result"] is None
    assert first["refused"]
    assert report["result"] == second["result"]
    chosen = rlu(*words, "--format", "json").report["methods"][0]
    assert chosen["method"] == "emulation"
    assert "not linear" in chosen["chosen"]
    shown = rlu(*words, *methods)
    assert "RLU: not run:" in shown.out


def test_no_images_for_virtual_clients(rlu: Command, world: World) -> None:
    words = ["attack", *world.pair, "--aux", "none", *world.told, "--image-size", "32"]
    result = rlu(*words, "--method", "ramakrishna-dan-virtual")
    assert result.status == 2
    assert "E109" in result.err
    assert "--aux" in result.err


def test_without_images_a_method_that_needs_them_says_so(rlu: Command, world: World) -> None:
    words = ["attack", *world.pair, "--aux", "none", *world.told, "--image-size", "32"]
    result = rlu(*words, "--method", "llg+")
    assert result.status == 0, result.err
    assert "LLG+: it needs labelled images, but noise images are used instead" in result.out


def test_an_unknown_method(rlu: Command, world: World) -> None:
    result = rlu("attack", *world.pair, "--aux", world.aux, *world.told, "--method", "dlg")
    assert result.status == 2
    assert "E101" in result.err
    assert "irlg" in result.err


def test_methods_from_the_environment_and_from_a_file(
    rlu: Command, world: World, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["attack", *world.pair, "--aux", world.aux, *world.told, "--format", "json"]
    (work / "rlu.toml").write_text('method = ["ebi", "uniform"]\n', encoding="utf-8")
    assert [m["method"] for m in rlu(*words).report["methods"]] == ["ebi", "uniform"]
    monkeypatch.setenv("RLU_METHOD", "irlg,prior")
    assert [m["method"] for m in rlu(*words).report["methods"]] == ["irlg", "prior"]


def test_redacted_methods_tell_nothing_of_the_client(rlu: Command, world: World) -> None:
    words = ["attack", *world.pair, "--aux", world.aux, *world.told, "--redact"]
    methods = ["--method", "rlu", "--method", "idlg", "--format", "json"]
    for method in rlu(*words, *methods).report["methods"]:
        for row in method["result"]["counts"]:
            assert row["count"] is row["share"] is row["present"] is row["class"] is None
