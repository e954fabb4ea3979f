"""`rlu convert`: what was read, as safetensors, whole or not at all."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_world import Command, World
from safetensors.torch import load_file, save_file


def test_a_trainer_s_checkpoint_becomes_a_state_dict(
    rlu: Command, world: World, tmp_path: Path
) -> None:
    state, out = world.states[1], tmp_path / "out.safetensors"
    content = {"model": {f"module.{n}": t.half() for n, t in state.items()}, "path": Path("x")}
    torch.save(content, tmp_path / "c.pt")
    done = rlu("convert", tmp_path / "c.pt", out)
    assert done.status == 0, done.err
    assert "pathlib" in done.out
    written = load_file(out)
    assert set(written) == set(state)
    assert all(torch.equal(written[n], t.half().float()) for n, t in state.items())
    if sys.platform != "win32":
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "format              safetensors" in rlu("inspect", out).out


@pytest.mark.parametrize("names", ["like", "model", "recognised"])
def test_tensors_without_names_are_named(
    names: str, rlu: Command, world: World, tmp_path: Path
) -> None:
    state, out = world.states[1], tmp_path / "out.safetensors"
    np.savez(tmp_path / "c.npz", *[tensor.numpy() for tensor in state.values()])
    more: dict[str, list[object]] = {
        "like": ["--like", world.before],
        "model": ["--model", "lenet5"],
        "recognised": [],
    }
    assert rlu("convert", tmp_path / "c.npz", out, *more[names]).status == 0
    written = load_file(out)
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_tied_and_strided_tensors_are_written(rlu: Command, tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "b": shared, "c": shared.T}, tmp_path / "c.pt")
    out = tmp_path / "out.safetensors"
    assert rlu("convert", tmp_path / "c.pt", out).status == 0
    assert torch.equal(load_file(out)["c"], shared.T)


def test_what_cannot_be_written_leaves_nothing(rlu: Command, world: World, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    for words, code in (
        ([world.after, tmp_path / "out.pt"], "E101"),
        ([tmp_path / "none.pt", out], "E201"),
        ([world.after, tmp_path / "none" / "out.safetensors"], "E201"),
        ([world.after, "/dev/null.safetensors"], "E201"),
    ):
        done = rlu("convert", *words)
        assert code in done.err, done.err
        assert not out.exists()
    save_file({"w": torch.zeros(1)}, out)
    assert "E106" in rlu("convert", world.after, out).err
    assert "E106" in rlu("convert", out, out, "--force").err
    assert set(load_file(out)) == {"w"}
    assert rlu("convert", world.after, out, "--force").status == 0
    assert set(load_file(out)) == set(world.states[1])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".rlu")] == []


def test_a_report_says_what_was_not_built_and_what_had_no_name(
    rlu: Command, world: World, tmp_path: Path
) -> None:
    before, after = world.states
    torch.save({"model": before, "path": Path("x")}, tmp_path / "g.pt")
    np.savez(tmp_path / "c.npz", *[tensor.numpy() for tensor in after.values()])
    pair = ["--global", tmp_path / "g.pt", "--local", tmp_path / "c.npz"]
    done = rlu("attack", *pair, "--aux", world.aux, *world.told)
    assert done.status in (0, 4), done.err
    said = " ".join(done.out.split())
    assert "Python objects in the global file were not built: pathlib" in said
    assert "the client's file has no names" in said
    hidden = rlu("attack", *pair, "--aux", world.aux, *world.told, "--redact")
    assert "not built" in hidden.out
    assert "pathlib" not in hidden.out
    assert tmp_path.name not in hidden.out


def test_names_that_are_no_text_are_an_error(rlu: Command, tmp_path: Path) -> None:
    torch.save({"\ud800.weight": torch.zeros(1)}, tmp_path / "c.pt")
    done = rlu("convert", tmp_path / "c.pt", tmp_path / "out.safetensors")
    assert (done.status, done.err[:11]) == (3, "error[E201]")
    assert [p.name for p in tmp_path.iterdir()] in (["c.pt", "work"], ["work", "c.pt"])
