"""Lines of forget.csv and audit.toml, for what points at files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from poison_audit.case.csvfile import cells_of
from poison_audit.case.filetext import as_text, kind_of
from poison_audit.case.shown import Place

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?")


def places(forget: Path | None, config: Path | None, *, top: Path) -> dict[str, Place]:
    """Return the lines that reports point at.

    Args:
        forget: forget.csv, read already: `forget` is its header, `forget.ATTACK` the first row of
            that attack, of rows that name none `forget.unknown`.
        config: audit.toml, read already: `config` is its first line, `config.TABLE` the header of
            a table, `config.accept.N` that of an acceptance, from 0.
        top: what paths are relative to; of a file elsewhere its name alone is told.
    """
    found: dict[str, Place] = {}
    for path, lines in ((forget, _forget_lines), (config, _config_lines)):
        if path is not None:
            uri = _relative(path, top)
            for key, line in lines(path):
                found.setdefault(key, Place(uri=uri, line=line))
    return found


def _relative(path: Path, top: Path) -> str:
    real, root = path.resolve(), top.resolve()
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else path.name


def _forget_lines(path: Path) -> Iterator[tuple[str, int]]:
    yield "forget", 1
    if kind_of(path) not in (".csv", ".tsv", ".tab"):
        return
    header: list[str] = []
    for line, cells in cells_of(as_text(path.read_bytes(), str(path)), kind_of(path)):
        if not any(cells):
            continue
        if not header:
            header = cells
            yield "forget", line
            continue
        row = dict(zip(header, cells, strict=False))
        yield f"forget.{row.get('attack') or 'unknown'}", line


def _config_lines(path: Path) -> Iterator[tuple[str, int]]:
    yield "config", 1
    text = path.read_text(encoding="utf-8")
    tree = tomllib.loads(text)
    entries: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        match = _HEADER.fullmatch(line)
        keys = _keys(match[2]) if match else None
        # What looks like a header may stand in a string: the table must be there.
        if match is None or keys is None or not _is_there(tree, keys):
            continue
        name = ".".join(keys)
        if match[1] == "[[":
            at = entries.get(name, 0)
            entries[name] = at + 1
            name = f"{name}.{at}"
        yield f"config.{name}", number


def _keys(header: str) -> list[str] | None:
    """Return the dotted keys of a header, unquoted; None if it is none."""
    try:
        tree: Any = tomllib.loads(f"[{header}]")
    except ValueError:
        return None
    keys = []
    while isinstance(tree, Mapping) and tree:
        (key,) = tree
        keys.append(key)
        tree = tree[key]
    return keys


def _is_there(tree: Any, keys: list[str]) -> bool:
    for key in keys:
        if isinstance(tree, list) and tree:
            tree = tree[-1]
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return isinstance(tree, Mapping | list)
