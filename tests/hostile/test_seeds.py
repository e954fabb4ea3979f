"""The fuzzer's seeds: honest files that every reader reads, so that it starts deep in the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from readers import READ, READERS, outcome

SEEDS = Path(__file__).parent / "seeds"
FILES = sorted(path.relative_to(SEEDS).as_posix() for path in SEEDS.rglob("*") if path.is_file())


def test_every_reader_has_a_seed() -> None:
    assert {name.partition("/")[0] for name in FILES} == set(READERS)


@pytest.mark.parametrize("name", FILES)
def test_it_is_read(name: str, tmp_path: Path) -> None:
    reader = name.partition("/")[0]
    if reader == "yaml":
        pytest.importorskip("yaml", reason='PyYAML is not installed: pip install "rlu-cli[yaml]"')
    assert outcome(reader, tmp_path / "in", (SEEDS / name).read_bytes()) == READ
