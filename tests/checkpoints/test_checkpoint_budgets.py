"""Small files that would take much time or memory: each is refused, or read, within the promise.

The promise, in SECURITY.md: five seconds of CPU time, and a gigabyte over the file's size. The
tests allow twice the time, for slow machines; without the limits most of these take minutes.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import write_zip
from process_memory import memory, reset_peak

from rlu_cli.checkpoints import open_checkpoint
from rlu_cli.errors import InputError

SECONDS = 40.0  # of a slow machine, and with coverage measured; alone they take 4 at most
MEMORY = 2**30
START = b"\x80\x02"
Write = Callable[[Path], object]


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _storage(count: int) -> bytes:
    parts = _text("storage") + b"ctorch\nHalfStorage\n" + _text("0") + _text("cpu")
    return b"(" + parts + _number(count) + b"tQ"


# The storage in memo 0, the function that makes a view of it in memo 1; neither on the stack.
_REBUILD = b"q\x000ctorch._utils\n_rebuild_tensor_v2\nq\x010"


def _view(offset: int, size: int) -> bytes:
    return b"h\x01(h\x00" + _number(offset) + _number(size) + b"\x85K\x01\x85\x89}tR"


def _pickle(body: bytes, storage: int = 0) -> Write:
    """Writes a file with this pickle, and one storage of that many half-precision numbers."""
    return lambda path: write_zip(path, START + body, {"0": bytes(2 * storage)} if storage else {})


def _calls(argument: bytes, function: bytes, count: int) -> Write:
    """A function called that often with one memoised argument."""
    body = argument + b"q\x000c" + function + b"\nq\x010(" + b"h\x01h\x00\x85R" * count + b"l."
    return _pickle(body)


def _list(item: bytes, count: int) -> bytes:
    return b"(" + item * count + b"l"


def _dict(count: int, value: bytes) -> bytes:
    return b"}(" + b"".join(_text(f"k{n}") + value for n in range(count)) + b"u"


def _safetensors(header: bytes) -> Write:
    return lambda path: path.write_bytes(struct.pack("<Q", len(header)) + header)


def _empty_tensors(count: int) -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({f"w{n}": entry for n in range(count)}, separators=(",", ":")).encode()


def _archive(names: str, count: int, data: bytes) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(names.format("first"), data)
            for number in range(count):
                archive.writestr(names.format(number), data)

    return write


def _npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(0, np.float32))
    return buffer.getvalue()


_LATIN = _text("a" * 8_000_000) + b"q\x000c_codecs\nencode\nq\x010"
_ENCODED = b"h\x01h\x00" + _text("latin1") + b"\x86R"
_HALF = b"cnumpy\ndtype\n" + _text("f2") + b"\x89\x88\x87Rq\x030"
_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\nq\x040"
_FILLED = b"h\x04)R(K\x01" + _number(4_000_000) + b"\x85h\x03\x89h\x02tb"

_PRIME = 2**61 - 1  # whole numbers collide at its multiples
_SIZE = struct.pack("<i", 20_000_000)

# name: how it is written, the code of the refusal
HOSTILE: dict[str, tuple[Callable[[], Write], str]] = {
    "700 views of a storage in half precision": (
        lambda: _pickle(
            _storage(8_500_000)
            + _REBUILD
            + b"}("
            + b"".join(_text(f"w{n}") + _view(n, 8_499_000) for n in range(700))
            + b"u.",
            8_500_000,
        ),
        "E205",
    ),
    "40 views of a storage in half precision": (
        lambda: _pickle(
            _storage(8_500_000)
            + _REBUILD
            + b"}("
            + b"".join(_text(f"w{n}") + _view(n, 8_499_000) for n in range(40))
            + b"u.",
            8_500_000,
        ),
        "E204",
    ),
    "half a million views": (
        lambda: _pickle(
            _storage(4) + _REBUILD + _view(0, 4) + b"q\x020" + _dict(470_000, b"h\x02") + b".", 4
        ),
        "E204",
    ),
    "bytes encoded anew from one text": (
        lambda: _pickle(_LATIN + _list(_ENCODED, 130_000) + b"."),
        "E208",
    ),
    "a thousand arrays of the same bytes": (
        lambda: _pickle(
            _LATIN + _ENCODED + b"q\x020" + _HALF + _ARRAY + _dict(1000, _FILLED) + b".",
        ),
        "E204",
    ),
    "sets of one list": (
        lambda: _calls(_list(b"K\x01", 300_000), b"__builtin__\nset", 130_000),
        "E208",
    ),
    "lists of one list": (
        lambda: _calls(_list(b"K\x01", 300_000), b"__builtin__\nlist", 130_000),
        "E203",
    ),
    "ordered dicts of one list": (
        lambda: _calls(_list(b"K\x01K\x02\x86", 200_000), b"collections\nOrderedDict", 100_000),
        "E204",
    ),
    "sizes of one tuple": (
        lambda: _calls(b"(" + b"K\x01" * 90_000 + b"t", b"ctorch\nSize"[1:], 200_000),
        "E204",
    ),
    "steps without end": (
        lambda: _pickle(b"N0" * 2_000_000 + b"N."),
        "E204",
    ),
    "marks without end": (
        lambda: _pickle(b"(" * 4_000_000 + b"."),
        "E204",
    ),
    "nested lists": (
        lambda: _pickle(b"]" * 400_000 + b"a" * 399_999 + b"."),
        "E208",
    ),
    "nested tuples": (
        lambda: _pickle(b")" + b"\x85" * 500_000 + b"."),
        "E204",
    ),
    "names of 240 MB": (
        lambda: _pickle(
            b"}(" + b"".join(_text(f"{n:04000}") + b"N" for n in range(60_000)) + b"u."
        ),
        "E204",
    ),
    "one long line": (
        lambda: _pickle(b"S'" + b"a" * 50_000_000 + b"'\n."),
        "E204",
    ),
    "one long number": (
        lambda: _pickle(b"\x8b" + _SIZE + bytes(20_000_000) + b"."),
        "E204",
    ),
    "keys that collide": (
        lambda: _pickle(
            b"}("
            + b"".join(
                b"\x8a\x0b" + (n * _PRIME).to_bytes(11, "little") + b"N" for n in range(200_000)
            )
            + b"u."
        ),
        "E208",
    ),
    "dicts in a dict that are one": (
        lambda: _pickle(_dict(100_000, b"N") + b"q\x000" + _dict(100_000, b"h\x00") + b"."),
        "E208",
    ),
    "modules that hold themselves": (
        lambda: _pickle(
            b"cm\nM\n)\x81q\x02}("
            + _text("_parameters") + b"}" + _text("_buffers") + b"}" + _text("_modules")
            + _dict(300_000, b"h\x02") + b"ub."
        ),
        "E204",
    ),
    "220,000 empty tensors": (
        lambda: _safetensors(_empty_tensors(220_000)),
        "E204",
    ),
    "300,000 empty tensors": (
        lambda: _safetensors(_empty_tensors(300_000)),
        "E204",
    ),
    "eight million dimensions": (
        lambda: _safetensors(
            b'{"a":{"dtype":"F32","shape":[' + b"0," * 7_900_000 + b'0],"data_offsets":[0,0]}}'
        ),
        "E204",
    ),
    "a deep header": (
        lambda: _safetensors(b'{"a":' + b"[" * 8_000_000),
        "E202",
    ),
    "a header of one number": (
        lambda: _safetensors(b'{"a":' + b"9" * 8_000_000 + b"}"),
        "E202",
    ),
    "150,000 entries": (
        lambda: _archive("m/data/{}", 150_000, b""),
        "E204",
    ),
    "20,000 arrays": (
        lambda: _archive("{}.npy", 20_000, _npy()),
        "E204",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_it_takes_is_bounded(name: str, tmp_path: Path) -> None:
    write, code = HOSTILE[name]
    path = tmp_path / "c"
    write()(path)
    measured = sys.platform == "linux" and reset_peak()
    held, started = memory("VmRSS") if measured else 0, time.process_time()
    with pytest.raises(InputError) as caught:
        open_checkpoint(path)
    assert time.process_time() - started < SECONDS
    if measured:
        assert memory("VmHWM") - held < MEMORY + path.stat().st_size
    assert caught.value.code == code
    assert len(str(caught.value)) < 2000


def test_momentum_that_is_one_dict_in_every_place(tmp_path: Path) -> None:
    """Looked through once for each parameter, 100,000 times 100,000 entries take hours."""
    held = {f"k{n}": None for n in range(100_000)}
    optimiser = {"state": dict.fromkeys(range(100_000), held), "param_groups": [held] * 100_000}
    torch.save({"model": {"w": torch.ones(2)}, "optimizer": optimiser}, tmp_path / "c")
    started = time.process_time()
    assert torch.equal(open_checkpoint(tmp_path / "c").state["w"], torch.ones(2))
    assert time.process_time() - started < SECONDS


def test_as_many_tensors_as_any_model_has_are_read(tmp_path: Path) -> None:
    body = _storage(4) + _REBUILD + _view(0, 4) + b"q\x020" + _dict(30_000, b"h\x02") + b"."
    _pickle(body, 4)(tmp_path / "c")
    started = time.process_time()
    assert len(open_checkpoint(tmp_path / "c").state) == 30_000
    assert time.process_time() - started < SECONDS
