"""Every route by which unpickling calls code, and every file in which a reader meets a pickle.

Each pickle makes a folder when it is really unpickled; the tests show that it does.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from checkpoint_files import MAGIC, PROTOCOL, write_zip

Route = Callable[[str], bytes]  # the folder's path → a pickle


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _call(function: str, *arguments: bytes) -> bytes:
    """A function by its dotted name, called with what these opcodes push."""
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def _source(path: str) -> bytes:
    return _text(f"__import__('os').mkdir({path!r})")


def _os() -> bytes:
    return _call("importlib.import_module", _text("os"))


def _mkdir(path: str) -> bytes:
    return _call("os.mkdir", _text(path))


def _lazy(function: str) -> Route:
    """A function that is known, given an iterator that calls when it is walked."""
    walked = "builtins.map", b"cos\nmkdir\n"
    return lambda path: _call(function, _call(walked[0], walked[1], b"(" + _text(path) + b"l"))


def _saved(path: str) -> bytes:
    """What torch.storage._load_from_bytes loads, weights_only or not."""
    first = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {})]
    return b"".join([*first, b"\x80\x02" + _mkdir(path) + b".", pickle.dumps([], 2)])


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


_BODIES: dict[str, Route] = {
    "REDUCE": _mkdir,
    "INST": lambda path: b"(" + _text(path) + b"ios\nmkdir\n",
    "OBJ": lambda path: b"(cos\nmkdir\n" + _text(path) + b"o",
    "STACK_GLOBAL": lambda path: _text("os") + _text("mkdir") + b"\x93" + _text(path) + b"\x85R",
    "STACK_GLOBAL of memoised names": lambda path: (
        _text("os") + b"q\x000" + _text("mkdir") + b"q\x010h\x00h\x01\x93(" + _text(path) + b"tR"
    ),
    "a dotted name": lambda path: (
        _text("os") + _text("path.os.mkdir") + b"\x93" + _text(path) + b"\x85R"
    ),
    "eval": lambda path: _call("builtins.eval", _source(path)),
    "exec": lambda path: _call("builtins.exec", _source(path)),
    "Python 2 names": lambda path: b"\x80\x02" + _call("__builtin__.eval", _source(path)),
    "getattr": lambda path: (
        _call("builtins.getattr", _os(), _text("mkdir")) + b"(" + _text(path) + b"tR"
    ),
    "partial": lambda path: _call("functools.partial", b"cos\nmkdir\n", _text(path)) + b")R",
    "methodcaller": lambda path: (
        _call("operator.methodcaller", _text("mkdir"), _text(path)) + b"(" + _os() + b"tR"
    ),
    "timeit": lambda path: _call("timeit.timeit", _source(path)),
    "numpy's runstring": lambda path: _call("numpy.testing.runstring", _source(path), b"}"),
    "a pickle in a pickle": lambda path: _call("pickle.loads", _bytes(_mkdir(path) + b".")),
    "a torch file in a pickle": lambda path: _call(
        "torch.storage._load_from_bytes", _bytes(_saved(path))
    ),
    "list of an iterator": _lazy("builtins.list"),
    "set of an iterator": _lazy("builtins.set"),
    "OrderedDict of an iterator": _lazy("collections.OrderedDict"),
    "Size of an iterator": _lazy("torch.Size"),
    "bytearray of an iterator": _lazy("builtins.bytearray"),
    "inside a persistent id": lambda path: b"(" + _text("storage") + _mkdir(path) + b"tQ",
    "as a key": lambda path: b"}" + _mkdir(path) + b"Ns",
    "as a state": lambda path: b"ccollections\nOrderedDict\n)R" + _mkdir(path) + b"b",
    "as an argument of a tensor": lambda path: _call(
        "torch._utils._rebuild_tensor_v2", _mkdir(path)
    ),
    "popped before the end": lambda path: _mkdir(path) + b"0N",
}  # fmt: skip
ROUTES: dict[str, Route] = {
    name: (lambda path, body=body: b"\x80\x04" + body(path) + b".")  # type: ignore[misc]
    for name, body in _BODIES.items()
}


def _zip(code: bytes) -> bytes:
    buffer = io.BytesIO()
    write_zip(buffer, code, {"0": bytes(64)})  # type: ignore[arg-type]
    return buffer.getvalue()


def _legacy(code: bytes) -> bytes:
    first = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {})]
    return b"".join([*first, code, pickle.dumps([], 2)])


def _legacy_keys(code: bytes) -> bytes:
    first = [pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {}, {})]
    return b"".join([*first, code])


def _npy(code: bytes) -> bytes:
    """An array of objects, which are a pickle behind the header."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    return buffer.getvalue() + code


def _npz(code: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("images", "labels", "weight"):
            archive.writestr(f"{name}.npy", _npy(code))
    return buffer.getvalue()


# where a pickle stands: the reader, and the file with the pickle in it
PLACES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "a torch zip": ("checkpoint", _zip),
    "a legacy torch file": ("checkpoint", _legacy),
    "the keys of a legacy torch file": ("checkpoint", _legacy_keys),
    "an array file": ("checkpoint", _npy),
    "an archive of arrays": ("checkpoint", _npz),
    "an unpacked torch file": ("pickle", bytes),
    "distributed metadata": ("distributed", bytes),
    "a trainer's arguments": ("arguments", _zip),
    "an archive of images": ("image-archive", _npz),
    "a CIFAR batch": ("cifar", bytes),
}


def unpickle(code: bytes) -> None:
    """Really unpickle, as `torch.load(weights_only=False)` would; its error is of no interest."""
    try:
        _Live(io.BytesIO(code)).load()
    except Exception:
        return


class _Live(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        return torch.UntypedStorage(0)
