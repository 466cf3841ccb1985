"""What a checkpoint's file is, by its content: suffixes are habits, and `.tar` may be anything."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Literal

from poison_audit.errors import InputError, Problem

Kind = Literal["safetensors", "pickle"]

_ELSEWHERE = "Only PyTorch's weights are read: give the checkpoint that it was converted from."
_UNPACK = "Unpack it, and name the checkpoint that is in it."
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git", "is a Git LFS pointer, not the weights", "Run git lfs pull."),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes", _ELSEWHERE),
    (b"GGUF", "is a GGUF file, as llama.cpp reads", _ELSEWHERE),
    (b"\x1f\x8b", "is a gzip archive", _UNPACK),
    (b"\xfd7zXZ", "is an xz archive", _UNPACK),
    (b"BZh", "is a bzip2 archive", _UNPACK),
    (b"(\xb5/\xfd", "is a Zstandard archive", _UNPACK),
    (b"7z\xbc\xaf", "is a 7z archive", _UNPACK),
    (b"Rar!", "is a RAR archive", _UNPACK),
    (b"MATLAB", "is a MATLAB file", _ELSEWHERE),
)
"""How files of other formats begin, what they are, and what to do."""
_SUFFIXES = {
    ".onnx": ("is an ONNX graph", _ELSEWHERE),
    ".tflite": ("is a TensorFlow Lite model", _ELSEWHERE),
    ".pb": ("is a TensorFlow graph", _ELSEWHERE),
    ".index": ("belongs to a TensorFlow checkpoint", _ELSEWHERE),
    ".msgpack": ("is a Flax checkpoint", _ELSEWHERE),
    ".mlmodel": ("is a Core ML model", _ELSEWHERE),
    ".engine": ("is a TensorRT engine", _ELSEWHERE),
    ".distcp": (
        "is a part of a distributed checkpoint",
        "Join it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER out.pt",
    ),
}
"""What files are that do not say it themselves, by suffix."""
_KNOWN = "Known: .safetensors and its index; with --allow-pickle whatever torch.save wrote."


def kind_of(file: Path) -> Kind:
    """Return how a file's tensors are stored.

    Raises:
        InputError: it is of another format; says what it is and what to do.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise InputError(Problem("is empty (0 bytes)", str(file), "Fetch it again."))
    if refused := _foreign(file, head):
        raise InputError(Problem(refused[0], str(file), refused[1]))
    if _is_pickle(file, head):
        return "pickle"
    if head[8:9] == b"{" or file.suffix == ".safetensors":
        return "safetensors"
    what = f"is of no known format ({file.suffix or 'no suffix'})"
    raise InputError(Problem(what, str(file), _KNOWN))


def _foreign(file: Path, head: bytes) -> tuple[str, str] | None:
    for magic, what, fix in _FOREIGN:
        if head.startswith(magic):
            return what, fix
    if head[4:8] == b"TFL3":
        return _SUFFIXES[".tflite"]
    # Field 1 of its protocol buffer is a small number, field 2 or 7 the producer or the graph.
    if head[:1] == b"\x08" and head[1] < 32 and head[2:3] in (b"\x12", b"\x3a"):
        return _SUFFIXES[".onnx"]
    if head[:6] == b"\x93NUMPY":
        return "is one NumPy array, not named tensors", "Give the checkpoint that torch.save wrote."
    if head.startswith(b"PK\x03\x04"):
        return _foreign_zip(file)
    if head[257:262] == b"ustar":
        return _foreign_tar(file)
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page or XML, not weights", "Was the download refused? Fetch it again."
    if text.startswith((b"{", b"[")) and head[8:9] != b"{":
        return "is JSON, not weights", "Name the file of the weights, or its folder."
    if file.name.startswith("events.out.tfevents"):
        return "is a log of TensorBoard, not weights", "Name the checkpoint."
    if ".data-0" in file.name:
        return _SUFFIXES[".index"]
    return None if head[8:9] == b"{" or _begins_pickle(head) else _SUFFIXES.get(file.suffix)


def _foreign_zip(file: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError):
        what = "is damaged: it begins as torch.save writes, but has no end"
        return what, "Fetch or save it again."
    names = [entry.filename.partition("/")[2] or entry.filename for entry in entries]
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        what = "is a TorchScript archive, a program with its weights"
        return what, _saving_of(file, f"torch.jit.load({str(file)!r}, map_location='cpu')")
    if "data.pkl" in names:
        # A small file may not become gigabytes: torch.save packs nothing.
        whole = sum(entry.file_size for entry in entries) <= file.stat().st_size
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        what = "is packed, and torch.save packs nothing"
        return None if whole and stored else (what, "Save it again by torch.save.")
    if any("exported_program" in name or name == "archive_format" for name in names):
        what = "is a program that torch.export saved"
        return what, _saving_of(file, f"torch.export.load({str(file)!r})")
    if "model.weights.h5" in (*names, *(name.rpartition("/")[2] for name in names)):
        return "is a Keras model", _ELSEWHERE
    if any(name.endswith(".npy") for name in names):
        what = "holds NumPy arrays (.npz)"
        how = f"save_file(dict(np.load({str(file)!r})), {_beside(file)!r})"
        return what, _command(f"import numpy as np; from safetensors.numpy import save_file; {how}")
    if any(name.startswith("MAR-INF") for name in names):
        return "is an archive of TorchServe", _UNPACK
    return "is a zip archive, and not one of torch.save", _UNPACK


def _foreign_tar(file: Path) -> tuple[str, str] | None:
    try:
        with tarfile.open(file) as archive:
            names = set(archive.getnames())
    except (tarfile.TarError, OSError, ValueError):
        return "is a damaged tar archive", "Fetch it again."
    if {"storages", "tensors", "pickle"} <= names:
        what = "is of the tar format that torch wrote before version 0.2"
        return what, saved_again(file, "")
    return "is a tar archive", _UNPACK


def saved_again(file: Path, entry: str) -> str:
    """Return the command that saves a trusted pickle's tensors in a form that needs no trust.

    Args:
        file: what torch.save wrote.
        entry: what to take of its content, such as `['state_dict']`; it may be a whole network.
    """
    loaded = f"torch.load({str(file)!r}, map_location='cpu', weights_only=False){entry}"
    return _saving_of(file, loaded)


def _saving_of(file: Path, value: str) -> str:
    how = (
        f"m = {value}; m = m if isinstance(m, dict) else m.state_dict(); "
        f"save_file({{k: v.clone().contiguous() for k, v in m.items()}}, {_beside(file)!r})"
    )
    return _command(f"import torch; from safetensors.torch import save_file; {how}")


def _command(code: str) -> str:
    return f'If you trust it, save its tensors: python -c "{code}"'


def _beside(file: Path) -> str:
    """Return the name of a safetensors file beside `file` that is none of the usual ones."""
    return str(file.with_name(f"{file.name}.safetensors"))


def _is_pickle(file: Path, head: bytes) -> bool:
    return _begins_pickle(head) or zipfile.is_zipfile(file)


def _begins_pickle(head: bytes) -> bool:
    # Protocol 2 or later: torch.save has written no earlier one. A safetensors file begins with
    # the length of its header, which may begin the same, but its ninth byte is a brace.
    return head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and head[8:9] != b"{"
