"""No pickle calls code, whichever way it tries and in whichever file it lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from readers import READ, outcome
from routes import PLACES, ROUTES, unpickle

REFUSALS = {"E202", "E203", "E204", "E206", "E208", "E220"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("route", ROUTES)
def test_the_pickle_is_live(route: str, tmp_path: Path) -> None:
    """Otherwise the next test would show nothing."""
    unpickle(ROUTES[route](str(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("route", ROUTES)
def test_it_does_not_run_and_the_file_is_refused(route: str, place: str, tmp_path: Path) -> None:
    """Nothing else in these files is worth reading; a trainer's arguments are none then."""
    reader, wrap = PLACES[place]
    end = outcome(reader, tmp_path / "in", wrap(ROUTES[route](str(tmp_path / "ran"))))
    assert not (tmp_path / "ran").exists()
    assert end in REFUSALS or (reader, end) == ("arguments", READ)
