"""Every kind of hostile file ends as it must, and takes no more than SECURITY.md promises."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from kinds import KINDS
from process_memory import memory, reset_peak
from readers import READERS, outcome

SECONDS, BYTES = 40.0, 2**30


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_it_ends_as_it_must(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    if kind.reader == "yaml":
        pytest.importorskip("yaml", reason='PyYAML is not installed: pip install "rlu-cli[yaml]"')
    data = kind.make()
    measured = sys.platform == "linux" and reset_peak()
    held, started = memory("VmRSS") if measured else 0, time.process_time()
    end = outcome(kind.reader, tmp_path / "in", data)
    assert time.process_time() - started < SECONDS
    if measured:
        assert memory("VmHWM") - held < BYTES + len(data)
    assert end == kind.end


def test_every_reader_has_a_kind() -> None:
    with_pickles = {"pickle", "distributed", "arguments", "cifar"}
    assert {kind.reader for kind in KINDS.values()} | with_pickles == set(READERS)
