"""How files are damaged: bytes for most of them, values for what is JSON."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from typing import Any

import numpy as np

NASTY = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b",", b"{", b"}", b"[", b"]",
    b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 400, b"0x7f", b"\\ud800",
    b"../../etc/passwd", b"/dev/zero", b"\\\\host\\share", b"<script>", b"\xe2\x80\xae",
    b"[" * 3000, b'{"a":' * 2000, b"A" * 200_000,
)  # fmt: skip
LEAVES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**300, 0.5, -0.0, 1e308, "", "x",
    "\x00", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), "\u202e", "../x",
    "/dev/zero", "A" * 5000, [], {}, [None], [[[]]], {"a": None}, [0] * 1000, [1e308] * 3,
    ["a", 1, None], {"": ""},
)  # fmt: skip


def damaged(content: bytes, draws: np.random.Generator) -> bytes:
    """Return a damaged copy: bytes for most files, values for what is JSON."""
    if content[:1] in b"{[" and draws.random() < 0.6:
        return _changed_json(content, draws)
    if content[8:9] == b"{" and draws.random() < 0.6:
        return _changed_header(content, draws)
    if content[:2] == b"PK" and draws.random() < 0.4:
        return _changed_zip(content, draws)
    data = bytearray(content)
    for _ in range(int(draws.integers(1, 6))):
        at = int(draws.integers(0, len(data) + 1))
        match int(draws.integers(0, 6)):
            case 0 if data:
                data[at % len(data)] = int(draws.integers(0, 256))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = NASTY[int(draws.integers(0, len(NASTY)))]
            case 3:
                del data[at : at + int(draws.integers(1, 50))]
            case 4:
                end = min(len(data), at + int(draws.integers(1, 200)))
                data[at:at] = data[at:end]
            case 5 if len(data) >= 8:
                at = at % (len(data) - 7)
                wide = int(draws.choice([0, 1, 2**31, 2**32, 2**40, 2**63 - 1]))
                data[at : at + 8] = struct.pack("<Q", wide)
            case _:
                pass
    return bytes(data)


def _changed_json(content: bytes, draws: np.random.Generator) -> bytes:
    try:
        tree = json.loads(content)
    except ValueError:
        return content[: len(content) // 2]
    for _ in range(int(draws.integers(1, 4))):
        tree = _changed_value(tree, draws)
    text = json.dumps(tree)
    if draws.random() < 0.2:
        text = re.sub(
            r"\d+", lambda m: str(draws.choice(["NaN", "1e400", "-0", m[0] * 40])), text, count=1
        )
    return text.encode("utf-8", "replace")


def _changed_value(tree: Any, draws: np.random.Generator) -> Any:
    if isinstance(tree, dict) and tree and draws.random() < 0.92:
        key = list(tree)[int(draws.integers(0, len(tree)))]
        match int(draws.integers(0, 8)):
            case 0:
                return {k: v for k, v in tree.items() if k != key}
            case 1:
                return {**tree, f"{key}x": tree[key]}
            case _:
                return {**tree, key: _changed_value(tree[key], draws)}
    if isinstance(tree, list) and tree and draws.random() < 0.92:
        at = int(draws.integers(0, len(tree)))
        match int(draws.integers(0, 8)):
            case 0:
                return tree[:at] + tree[at + 1 :]
            case 1:
                return tree + tree[at : at + 1]
            case 2:
                return tree[::-1]
            case _:
                return [*tree[:at], _changed_value(tree[at], draws), *tree[at + 1 :]]
    return LEAVES[int(draws.integers(0, len(LEAVES)))]


def _changed_header(content: bytes, draws: np.random.Generator) -> bytes:
    """Damage the header of a safetensors file, and leave the rest of it whole."""
    size = int.from_bytes(content[:8], "little")
    header = _changed_json(content[8 : 8 + size], draws)
    told = len(header) if draws.random() < 0.8 else int(draws.integers(0, 2**40))
    return told.to_bytes(8, "little") + header + content[8 + size :]


def _changed_zip(content: bytes, draws: np.random.Generator) -> bytes:
    """Pack the members again, one of them damaged, left out, twice there or far too large."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        names = old.namelist()
        victim = names[int(draws.integers(0, len(names)))]
        for name in names:
            data = old.read(name)
            if name == victim:
                match int(draws.integers(0, 5)):
                    case 0:
                        continue
                    case 1:
                        data = data[: int(draws.integers(0, len(data)))]
                    case 2:
                        data = re.sub(rb"\(\d+", b"(99999999999", data)
                    case 3:
                        data = bytes(8 << 20)
                    case _:
                        data = damaged(b"\x01" + data, draws)[1:]
            new.writestr(name, data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()
