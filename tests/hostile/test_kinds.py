"""Every kind of hostile file ends as it must, and takes no more than SECURITY.md promises."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from kinds import KINDS
from readers import READERS, outcome

SECONDS, BYTES = 40.0, 2**30


def _memory(kind: str) -> int:
    """Bytes that this process has (VmRSS), or has had at most since the last reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_it_ends_as_it_must(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    if kind.reader == "yaml":
        pytest.importorskip("yaml", reason='PyYAML is not installed: pip install "rlu-cli[yaml]"')
    data = kind.make()
    measured = sys.platform == "linux" and _reset_peak()
    held, started = _memory("VmRSS") if measured else 0, time.process_time()
    end = outcome(kind.reader, tmp_path / "in", data)
    assert time.process_time() - started < SECONDS
    if measured:
        assert _memory("VmHWM") - held < BYTES + len(data)
    assert end == kind.end


def test_every_reader_has_a_kind() -> None:
    with_pickles = {"pickle", "distributed", "arguments", "cifar"}
    assert {kind.reader for kind in KINDS.values()} | with_pickles == set(READERS)
