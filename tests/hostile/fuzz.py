"""Fuzz one reader, guided by the coverage of `rlu_cli`: nothing but a coded error may come of it.

    pip install atheris
    python tests/hostile/fuzz.py READER -runs=100000

Arguments after the reader are libFuzzer's. The seeds are in tests/hostile/seeds; what is found is
written to the working directory, as `crash-…`. docs/fuzzing.md has the last recorded run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rlu_cli"], enable_loader_override=False):
    import readers

    from rlu_cli.errors import InternalError, RluError

SEEDS = Path(__file__).parent / "seeds"


def main() -> None:
    reader = sys.argv[1] if len(sys.argv) > 1 else ""
    if reader not in readers.READERS:
        sys.exit(f"usage: fuzz.py READER [options of libFuzzer]\n{' '.join(readers.READERS)}")
    warnings.simplefilter("ignore")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        found = folder / "corpus"
        found.mkdir()

        def one(data: bytes) -> None:
            try:
                readers.read_with(reader, folder / "input", data)
            except RluError as refused:
                if isinstance(refused, InternalError) or "\x1b" in str(refused):
                    raise

        options = [f"-artifact_prefix={os.getcwd()}/", "-timeout=20", *sys.argv[2:]]
        atheris.Setup([sys.argv[0], *options, str(found), str(SEEDS / reader)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
