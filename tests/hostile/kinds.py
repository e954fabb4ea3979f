"""One generator of hostile files that hold no code: what is forged, how, and how it must end."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from checkpoint_files import fake, pickled
from make_seeds import seeds
from PIL import Image
from readers import READ, SKIPPED

MILLION = 1_000_000


@dataclass(frozen=True)
class Kind:
    """A kind of hostile file: the reader, its bytes when asked for, and how reading ends."""

    reader: str
    make: Callable[[], bytes]
    end: str


def _zip(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _torch(content: object, storage: bytes = bytes(64), **more: bytes) -> bytes:
    return _zip({"m/data.pkl": pickled(content), "m/data/0": storage, **more})


def _patched(name: bytes, offset: int, value: bytes) -> bytes:
    """An honest torch zip with one field of its directory changed."""
    data = bytearray(_torch({"w": fake(16, (16,), (1,))}))
    at = data.rindex(name) - 46 + offset
    data[at : at + len(value)] = value
    return bytes(data)


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _safetensors(header: Any, data: bytes = bytes(16)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(**changed: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changed}}


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _array(shape: str, kind: str = "<f4", data: bytes = b"") -> bytes:
    return _npy(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}", data)


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims this size; its pixels are what the data unpacks to."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _image(form: str, width: int = 4, height: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, form)
    return buffer.getvalue()


def _frames(count: int) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("P", (8, 8), n % 2) for n in range(count)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _images(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"images": np.zeros((2, 2, 2, 3), np.uint8), "labels": [0, 1], **arrays})
    return buffer.getvalue()


def _seed(reader: str, name: str) -> bytes:
    return seeds()[reader][name]


def _matlab(old: bytes, new: bytes) -> bytes:
    return _seed("svhn", "matlab").replace(old, new, 1)


def _nested(count: int, left: bytes = b"[", right: bytes = b"]") -> bytes:
    return left * count + right * count


def _project(config: str) -> bytes:
    return f"[tool.flwr.app.config]\n{config}\n".encode()


KINDS: dict[str, Kind] = {
    # torch files: the archive
    "a deflated torch zip": Kind(
        "checkpoint", lambda: _zip({"m/data.pkl": pickled({}), "m/data/0": bytes(9999)}, 8), "E204"
    ),
    "a size that is inflated": Kind(
        "checkpoint", lambda: _patched(b"m/data/0", 24, struct.pack("<L", 1 << 30)), "E204"
    ),
    "an encrypted entry": Kind(
        "checkpoint", lambda: _patched(b"m/data/0", 8, struct.pack("<H", 1)), "E204"
    ),
    "entries that overlap": Kind(
        "checkpoint", lambda: _patched(b"m/data/0", 42, struct.pack("<L", 0)), "E204"
    ),
    "an entry outside": Kind("checkpoint", lambda: _torch({}, **{"m/../../x": b"x"}), "E204"),
    "a program beside the tensors": Kind(
        "checkpoint", lambda: _torch({}, **{"m/code/a.py": b"1", "m/constants.pkl": b"."}), "E203"
    ),
    "half a file": Kind("checkpoint", lambda: _torch({"w": fake(16, (16,), (1,))})[:200], "E202"),
    # torch files: tensors
    "a storage shorter than it says": Kind(
        "checkpoint", lambda: _torch({"w": fake(1 << 40, (4,), (1,))}), "E204"
    ),
    "a view of stride 0": Kind(
        "checkpoint", lambda: _torch({"w": fake(16, (1 << 20, 1 << 20), (0, 0))}), "E206"
    ),
    "a view beyond its storage": Kind(
        "checkpoint", lambda: _torch({"w": fake(16, (1 << 40,), (1,))}), "E206"
    ),
    "strides that overflow": Kind(
        "checkpoint", lambda: _torch({"w": fake(16, (1 << 62, 8), (8, 1))}), "E206"
    ),
    "a tensor without data": Kind(
        "checkpoint", lambda: _saved({"w": torch.zeros(3, device="meta")}), "E206"
    ),
    "a tensor that is not finite": Kind(
        "checkpoint", lambda: _saved({"w": torch.tensor([float("nan")])}), "E207"
    ),
    "a name with an escape": Kind(
        "checkpoint", lambda: _saved({"\x1b[31mw\u202e": torch.tensor([float("inf")])}), "E207"
    ),
    "dicts in themselves": Kind(
        "pickle", lambda: b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", "E208"
    ),
    "the last memo entry of all": Kind("pickle", lambda: b"\x80\x02Nr\xff\xff\xff\xff.", "E204"),
    "a frame beyond the end": Kind(
        "pickle", lambda: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", "E208"
    ),
    # safetensors
    "a header longer than the file": Kind(
        "checkpoint", lambda: struct.pack("<Q", 1 << 62) + b"{}", "E202"
    ),
    "tensors that overlap": Kind(
        "checkpoint", lambda: _safetensors({**_entry(), "v": _entry()["w"]}), "E202"
    ),
    "offsets beyond the end": Kind(
        "checkpoint", lambda: _safetensors(_entry(data_offsets=[0, 1 << 40])), "E202"
    ),
    "a shape that is no product of the bytes": Kind(
        "checkpoint", lambda: _safetensors(_entry(shape=[1 << 32, 1 << 32])), "E202"
    ),
    "a header of brackets": Kind(
        "checkpoint", lambda: _safetensors(b'{"w":' + b"[" * MILLION), "E202"
    ),
    # arrays
    "an archive of zeros": Kind(
        "checkpoint",
        lambda: _zip({"w.npy": _array("(500000000,)", data=bytes(20 * MILLION))}, 8),
        "E202",
    ),
    "a header that is code": Kind("checkpoint", lambda: _npy("__import__('os').abort()"), "E202"),
    "a header of brackets in an array": Kind("checkpoint", lambda: _npy("(" * 100), "E202"),
    "an array larger than its file": Kind("checkpoint", lambda: _array("(1000000000000,)"), "E202"),
    "a negative shape": Kind("checkpoint", lambda: _array("(-1,)"), "E202"),
    "a header with more in it": Kind(
        "checkpoint", lambda: _array("(1,)", "<f4', 'x': '", bytes(4)), "E202"
    ),
    # folders
    "an index that leads outside": Kind(
        "index", lambda: b'{"weight_map": {"w": "../model-1.safetensors"}}', "E204"
    ),
    "an index that names itself": Kind(
        "index", lambda: b'{"weight_map": {"w": "model.safetensors.index.json"}}', "E204"
    ),
    "an index of brackets": Kind("index", lambda: _nested(MILLION), "E202"),
    # images
    "a picture of two gigapixels": Kind("image", lambda: _png(60_000, 40_000), SKIPPED),
    "a picture that unpacks to a gigabyte": Kind(
        "image", lambda: _png(6_000, 6_000, zlib.compress(bytes(108 * MILLION), 9)), SKIPPED
    ),
    "a film of 2,000 frames": Kind("image", lambda: _frames(2_000), READ),
    "a picture in a format that runs a program": Kind("image", lambda: _image("EPS"), SKIPPED),
    "a document": Kind("image", lambda: _image("PDF"), SKIPPED),
    "a format that is not listed": Kind("image", lambda: _image("TIFF"), SKIPPED),
    "half a picture": Kind("image", lambda: _image("PNG", 64, 64)[:60], SKIPPED),
    "images of no size": Kind(
        "image-archive", lambda: _images(images=np.zeros((2, 0, 4, 3), np.uint8)), "E220"
    ),
    "images of no size, as numbers in 0…1": Kind(
        "image-archive", lambda: _images(images=np.zeros((2, 4, 0, 3))), "E220"
    ),
    "labels below zero": Kind("image-archive", lambda: _images(labels=[-1, 0]), "E220"),
    "labels beyond all classes": Kind(
        "image-archive", lambda: _images(labels=[0, 1 << 62]), "E220"
    ),
    "images that are not finite": Kind(
        "image-archive", lambda: _images(images=np.full((2, 2, 2, 3), np.nan)), "E220"
    ),
    "an archive of black images": Kind(
        "image-archive",
        lambda: _zip(
            {
                "images.npy": _array("(33333,32,32,3)", "|u1", bytes(102_398_976)),
                "labels.npy": _array("(1,)", "<i8", bytes(8)),
            },
            8,
        ),
        "E204",
    ),
    "class names with escapes": Kind(
        "image-archive", lambda: _images(class_names=["\x1b[2J", "b"], labels=[0, 7]), "E220"
    ),
    "a batch of many steps": Kind(
        "cifar", lambda: b"\x80\x02" + b"N0" * (4 * MILLION) + b"N.", "E202"
    ),
    "a matrix that claims more than there is": Kind(
        "svhn", lambda: _matlab(struct.pack("<i", 1), struct.pack("<i", 1 << 30)), "E202"
    ),
    # texts
    "truth of one endless number": Kind(
        "truth", lambda: b"[" + b"9" * 2 * MILLION + b", 1]", "E104"
    ),
    "truth of brackets": Kind("truth", lambda: _nested(MILLION), "E104"),
    "truth beyond what can be counted": Kind("truth", lambda: b"[1e999, 1]", "E104"),
    "truth below zero": Kind("truth", lambda: b"[-1, 2]", "E104"),
    "truth with an escape": Kind("truth", lambda: b'{"\\u001b[31m": 1, "b": 2}', "E230"),
    "truth over the limit": Kind("truth", lambda: b"[" + b"1," * (3 * MILLION) + b"1]", "E201"),
    "a truth file elsewhere": Kind("settings", lambda: b'truth = "../../secret"', "E105"),
    "a truth file by its whole path": Kind("settings", lambda: b'truth = "/etc/passwd"', "E105"),
    "code as the model": Kind("settings", lambda: b'model = "os:abort"', "E105"),
    "an output": Kind("settings", lambda: b'output = "x"', "E105"),
    "a higher limit": Kind("settings", lambda: b"max_bytes = 1", "E105"),
    "much work": Kind("settings", lambda: b"draws = 100000000", "E105"),
    "a setting with an escape": Kind("settings", lambda: b'"\\u001b[31m" = 1', "E101"),
    "settings of brackets": Kind("settings", lambda: b"a = " + _nested(100_000), "E201"),
    "settings over the limit": Kind("settings", lambda: b"#" * (2 * MILLION), "E201"),
    "a setting of many parts": Kind("settings", lambda: b"lr" + b".a" * 20_000 + b" = 1", "E201"),
    "arguments of many parts": Kind(
        "settings", lambda: b"model_args" + b'."="' * 20_000 + b" = 1", "E201"
    ),
    "a round of brackets": Kind("round", lambda: _nested(MILLION), "E231"),
    # run folders
    "an app elsewhere": Kind(
        "flower",
        lambda: _project("lr = 1") + b'[tool.flwr.app.components]\nclientapp = "../../x:app"',
        READ,
    ),
    "numbers that no setting has": Kind(
        "flower", lambda: _project(f"lr = {'9' * 400}\nbatch-size = -1\nlocal-epochs = 1e300"), READ
    ),
    "a name of many parts": Kind(
        "flower", lambda: _project("a = {a" + ".a" * 20_000 + " = 1}"), "E201"
    ),
    "an app of brackets": Kind("flower", lambda: b"a = " + _nested(100_000), "E201"),
    "a configuration of brackets": Kind("nvflare", lambda: _nested(MILLION), "E201"),
    "arguments whose quotes do not close": Kind(
        "nvflare", lambda: b'{"app_config": "--lr \\"0.1"}', READ
    ),
    "a million objects": Kind("nvflare", lambda: b"[" + b"{}," * MILLION + b"{}]", READ),
    "steps below zero": Kind(
        "trainer",
        lambda: b'{"train_batch_size": -1, "max_steps": -5, "log_history": [[], 1]}',
        READ,
    ),
    "a log of a million lines": Kind(
        "trainer", lambda: b'{"log_history": [' + b"{}," * MILLION + b"{}]}", READ
    ),
    "YAML that calls": Kind(
        "yaml",
        lambda: b"train_args:\n  federated_optimizer: !!python/object/apply:os.abort []",
        READ,
    ),
    "YAML of merges": Kind(
        "yaml",
        lambda: (
            b"federated_optimizer: &a0 {x: 1}\n"
            + b"".join(
                f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], k{n}: 1}}\n".encode()
                for n in range(1, 30)
            )
        ),
        "E201",
    ),
    "YAML of brackets": Kind("yaml", lambda: b"federated_optimizer: " + _nested(60_000), "E201"),
    "YAML over the limit": Kind("yaml", lambda: b"#federated_optimizer" * 100_000, "E201"),
}
