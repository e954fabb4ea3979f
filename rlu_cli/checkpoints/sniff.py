"""Recognise a checkpoint format by the first bytes of the file; describe files of other formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlu_cli.checkpoints.folder import FolderFormat
from rlu_cli.checkpoints.source import Format, Source
from rlu_cli.errors import InputError, printable

_OPENING = 512
_SAVE = "save tensors only, on the machine that trained it: torch.save(model.state_dict(), …)"
_CONVERT = "convert it to safetensors, or give the torch checkpoint it was made from"
_DOWNLOAD = "download the file itself; it may need a login"

# (first bytes, what such a file is, what to do next); the first match counts.
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file it points to", "git lfs pull"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, Matlab)", _CONVERT),
    (b"GGUF", "a GGUF file", _CONVERT),
    (b"<!DOCTYPE", "a web page", _DOWNLOAD),
    (b"<!doctype", "a web page", _DOWNLOAD),
    (b"<html", "a web page", _DOWNLOAD),
    (b"<?xml", "an XML document", _DOWNLOAD),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz", "unpack it with unxz"),
    (b"PK\x05\x06", "an empty zip archive", _SAVE),
    (b"\x80", "a plain Python pickle, not a torch checkpoint; it was not opened", _SAVE),
)


def sniff(source: Source, formats: Mapping[str, Format]) -> str:
    """Name of the format in `formats` that `source` is in; E202 when it is none of them."""
    opening = source.read(0, _OPENING)
    for name, form in formats.items():
        if form.matches(opening):
            return name
    what, hint = _describe(opening, ", ".join(formats))
    raise InputError("E202", f"cannot read {source.name}: it is {what}", hint=hint)


def sniff_folder(path: Path, formats: Mapping[str, FolderFormat]) -> str:
    """Name of the format in `formats` that the folder is in; E202 when it is none of them."""
    for name, form in formats.items():
        if form.matches(path):
            return name
    raise InputError(
        "E202",
        f"cannot read {printable(path)}: it is a folder in none of the known formats "
        f"({', '.join(formats)})",
        hint="give the checkpoint file in it",
    )


def _describe(opening: bytes, known: str) -> tuple[str, str]:
    if not opening:
        return "empty", "copy the file again; the transfer may have been interrupted"
    for magic, what, hint in _OTHERS:
        if opening.startswith(magic):
            return what, hint
    if opening[257:262] == b"ustar":
        return "a tar archive", "unpack it and give the checkpoint inside"
    return f"in none of the known formats ({known})", _SAVE
