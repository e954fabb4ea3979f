"""Earlier rounds on disk: who took part, with what rate, and what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from federations import CLIENTS, Federation, play
from torch import Tensor

from rlu_cli.case.round_history import RoundHistory, read_history
from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.errors import InputError
from rlu_cli.schemes import SCHEMES, Recursion

LAYER = "fc"
RECURSION = Recursion((0.1,) * 4, pull=0.5)


def _save(path: Path, vector: Tensor) -> None:
    """A vector of five as a layer of five classes, two wide, and its bias."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"fc.weight": torch.stack([vector, 2 * vector], 1), "fc.bias": vector}
    torch.save(state, path)


def _write(folder: Path, federation: Federation, *, server: bool = False) -> None:
    """A federation in the documented layout; the last round is the one under study."""
    for number, members in enumerate(federation.rounds):
        here = folder / f"r{number:03d}"
        _save(here / "global.pt", federation.globals_[number])
        for one in members:
            _save(here / f"c{one.client}.pt", one.states[-1])
        record = {
            "clients": [one.client for one in members],
            "total_clients": CLIENTS,
            "rate": RECURSION.rate,
        }
        (here / "round.json").write_text(json.dumps(record))
        value = federation.servers[number]
        if server and value is not None:
            _save(here / "server.pt", value)


def _read(folder: Path, number: int, client: int, *, needs_server: bool = False) -> RoundHistory:
    here = folder / f"r{number:03d}"
    return read_history(
        folder,
        here / f"c{client}.pt",
        open_checkpoint(here / "global.pt"),
        LAYER,
        rate=RECURSION.rate,
        needs_server=needs_server,
        max_bytes=2**30,
    )


@pytest.mark.parametrize("partial", [False, True], ids=["full", "partial"])
@pytest.mark.parametrize("name", ["feddyn", "feddc", "scaffold"])
def test_the_constant_from_disk_is_the_clients_own(
    tmp_path: Path, name: str, partial: bool
) -> None:
    scheme = SCHEMES[name].build(0.5)
    federation = play(scheme, RECURSION, 5, partial=partial)
    needs_server = name == "scaffold"
    _write(tmp_path, federation, server=needs_server)
    for one in federation.played:
        history = _read(tmp_path, one.number, one.client, needs_server=needs_server)
        assert len(history.past) == len(one.past)
        expected = scheme.constant(one.past, RECURSION.rate, one.server)
        found = scheme.constant(history.past, RECURSION.rate, history.server)
        if expected is None:
            assert found is None
        else:
            torch.testing.assert_close(found.bias, expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(found.weight[:, 1], 2 * expected, rtol=0, atol=1e-12)


def test_scaffold_server_values_are_derived_when_everybody_took_part(tmp_path: Path) -> None:
    federation = play(SCHEMES["scaffold"].build(0.0), Recursion((0.1,) * 4), 4)
    _write(tmp_path, federation)
    history = _read(tmp_path, 3, 1, needs_server=True)
    assert history.server is not None
    torch.testing.assert_close(history.server.bias, federation.servers[3], rtol=0, atol=1e-12)


def test_scaffold_without_server_values_under_partial_participation_is_an_error(
    tmp_path: Path,
) -> None:
    federation = play(SCHEMES["scaffold"].build(0.0), RECURSION, 4, partial=True)
    _write(tmp_path, federation)
    client = federation.rounds[3][0].client
    with pytest.raises(InputError) as error:
        _read(tmp_path, 3, client, needs_server=True)
    assert error.value.code == "E231"
    listed = dict(error.value.facts)["missing"].split(", ")
    own = [n for n in (1, 2) if client in [one.client for one in federation.rounds[n]]]
    assert listed == [f"r{number:03d}/server.pt" for number in (*own, 3)]


def test_all_missing_files_are_one_error(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 4)
    _write(tmp_path, federation)
    (tmp_path / "r001/c2.pt").unlink()
    (tmp_path / "r002/c2.pt").unlink()
    (tmp_path / "r000/global.pt").unlink()
    with pytest.raises(InputError) as error:
        _read(tmp_path, 3, 2)
    listed = dict(error.value.facts)["missing"]
    assert [part in listed for part in ("r000/global.pt", "r001/c2.pt", "r002/c2.pt")] == [True] * 3


def test_a_round_without_the_client_is_no_missing_round(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 4)
    _write(tmp_path, federation)
    (tmp_path / "r001/c2.pt").unlink()
    record = {"clients": ["c0", "c1", "c3"], "rate": RECURSION.rate}
    (tmp_path / "r001/round.json").write_text(json.dumps(record))
    assert len(_read(tmp_path, 3, 2).past) == 2


def test_without_round_json_the_files_tell(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 3, partial=True)
    _write(tmp_path, federation)
    for record in tmp_path.glob("r*/round.json"):
        record.unlink()
    history = _read(tmp_path, 2, 0)
    assert len(history.past) == 1
    assert all("learning rate missing" in note for note in history.notes)
    assert len(history.notes) == 2


def test_rates_come_from_the_rounds_themselves(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 3)
    _write(tmp_path, federation)
    record = {"clients": [0, 1, 2, 3], "lr": 0.2, "steps": 3}
    (tmp_path / "r001/round.json").write_text(json.dumps(record))
    rates = [done.rate for done in _read(tmp_path, 2, 0).past]
    assert rates == pytest.approx([RECURSION.rate, 0.6])


def test_a_local_file_elsewhere_has_every_round_behind_it(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 3)
    history = tmp_path / "history"
    _write(history, federation)
    found = read_history(
        history,
        tmp_path / "c1.pt",
        open_checkpoint(history / "r002/global.pt"),
        LAYER,
        rate=0.4,
        needs_server=False,
        max_bytes=2**30,
    )
    assert len(found.past) == 3


@pytest.mark.parametrize("content", ["not json", "[" * 100_000])
def test_a_round_json_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 2)
    _write(tmp_path, federation)
    (tmp_path / "r000/round.json").write_text(content)
    with pytest.raises(InputError, match="cannot read"):
        _read(tmp_path, 1, 0)


def test_no_history_folder(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 1)
    _write(tmp_path, federation)
    with pytest.raises(InputError, match="no history at"):
        read_history(
            tmp_path / "nowhere",
            tmp_path / "c1.pt",
            open_checkpoint(tmp_path / "r000/global.pt"),
            LAYER,
            rate=0.4,
            needs_server=False,
            max_bytes=2**30,
        )


@pytest.mark.parametrize("name", ["feddyn", "feddc", "scaffold"])
def test_a_whole_round_that_is_missing_is_missed(tmp_path: Path, name: str) -> None:
    federation = play(SCHEMES[name].build(0.5), RECURSION, 4)
    _write(tmp_path, federation)
    shutil.rmtree(tmp_path / "r001")
    with pytest.raises(InputError) as error:
        _read(tmp_path, 3, 1, needs_server=name == "scaffold")
    assert dict(error.value.facts)["missing"] == "r001/global.pt"


def test_rounds_may_be_counted_from_one(tmp_path: Path) -> None:
    federation = play(SCHEMES["feddyn"].build(0.5), RECURSION, 3)
    _write(tmp_path, federation)
    for number in (2, 1, 0):
        (tmp_path / f"r{number:03d}").rename(tmp_path / f"r{number + 1:03d}")
    assert len(_read(tmp_path, 3, 1).past) == 2


def test_a_server_value_elsewhere_is_named_by_its_path(tmp_path: Path) -> None:
    federation = play(SCHEMES["scaffold"].build(0.0), RECURSION, 2, partial=True)
    history = tmp_path / "history"
    _write(history, federation)
    elsewhere = tmp_path / "now" / "c1.pt"
    _save(elsewhere, federation.globals_[2])
    with pytest.raises(InputError) as error:
        read_history(
            history,
            elsewhere,
            open_checkpoint(history / "r001/global.pt"),
            LAYER,
            rate=0.4,
            needs_server=True,
            max_bytes=2**30,
        )
    assert str(tmp_path / "now" / "server.pt") in dict(error.value.facts)["missing"]
