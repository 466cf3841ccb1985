"""audit.toml: what is on trial, and the recipe it was trained by.

Everything audit.toml can say can be said by a flag, which wins. Unknown keys and values of the
wrong type are refused, all at once, with the nearest known key named.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from poison_audit.atomic import write_atomically
from poison_audit.commands.fields import is_pipe, number_in
from poison_audit.commands.presets import spelt_out
from poison_audit.commands.settings import ACCEPTANCE, TABLES, TOLERANCES, TRAINING
from poison_audit.errors import InputError, PlanError, Problem, Problems, did_you_mean
from poison_audit.records import Acceptance, Recipe

_DEEPEST = 4
"""Tables within tables: none that is known has so many."""
_MOST_LINES = 50
"""Lines that are no TOML, after which nothing else is read."""
HEAD = "# Written by poison-audit. Paths are relative to this file."
"""The first line of an audit.toml that did not exist before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What an audit.toml says, with its paths resolved against its folder."""

    path: Path | None = None
    values: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """By (table, key)."""
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters of methods and probes, by name."""
    accepted: tuple[Acceptance, ...] = ()
    """The entries of `[[accept]]`."""
    unusable: frozenset[tuple[str, str]] = frozenset()
    """By (table, key), what it gives in a form that is none: wrong, and said to be."""

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """Return the value of a key, or `default` where the file does not give it."""
        return self.values.get((table, key), default)

    @property
    def tolerances(self) -> dict[str, float]:
        """Those that it gives, by probe."""
        given = {name: self.get(f.table, f.key) for name, f in TOLERANCES.items()}
        return {name: value for name, value in given.items() if value is not None}


def find_config(model: Path) -> Path | None:
    """Return the audit.toml in a checkpoint's folder, else the one beside the checkpoint.

    One beside the forget set is not looked for: it may describe another model.
    """
    places = [folder / "audit.toml" for folder in (model, model.parent)]
    return next((path for path in places if path.is_file()), None)


def read_config(path: Path) -> Config:
    """Read an audit.toml; InputError: everything that is wrong with it."""
    problems = Problems()
    config = read_usable(path, problems)
    problems.raise_any()
    return config


def read_usable(path: Path, problems: list[Problem]) -> Config:
    """Read what can be used of an audit.toml, adding everything that is wrong to `problems`.

    What it gives is then not asked for in vain: all that is wrong is said at once.
    """
    where = str(path)
    try:
        tree, lost = _usable(_text(path), where, problems)
        return _read(tree, path, problems, lost)
    except InputError as error:
        problems += error.problems
    except RecursionError:
        problems.append(Problem("nested too deeply to be read", where))
    return Config(path=path)


def _read(
    tree: dict[str, Any], path: Path, problems: list[Problem], unusable: set[tuple[str, str]]
) -> Config:
    where = str(path)
    values: dict[tuple[str, str], Any] = {}
    params: dict[str, Mapping[str, Any]] = {}
    accepted = _acceptances(tree.pop("accept", []), problems, where)
    for table, content in _tables(tree, "", problems, where):
        kind, _, name = table.partition(".")
        if kind in ("methods", "probes") and name:
            params[name] = content
            continue
        if table not in TABLES:
            hint = did_you_mean(table, [*TABLES, "methods.NAME", "probes.NAME"])
            problems.append(Problem(f"unknown table [{table}]", where, hint))
            continue
        for key, value in content.items():
            declared = TABLES[table].get(key)
            if declared is None:
                hint = did_you_mean(key, TABLES[table])
                problems.append(Problem(f"unknown key {key!r}", f"{where} [{table}]", hint))
            elif not declared.kind.holds(value):
                what = f"expected {declared.kind.expected}, got {value!r:.60}"
                problems.append(Problem(what, f"{where} [{table}] {key}"))
                unusable.add((table, key))
            else:
                values[table, key] = kept = declared.kind.kept(path.parent, value)
                problems += _pipes(kept, f"{where} [{table}] {key}")
    return Config(
        path=path, values=values, params=params, accepted=accepted, unusable=frozenset(unusable)
    )


def _acceptances(entries: Any, problems: list[Problem], where: str) -> tuple[Acceptance, ...]:
    """Read `[[accept]]`, adding everything that is wrong with it to `problems`."""
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        what = f"expected [[accept]], once for each accepted risk, got {entries!r:.60}"
        problems.append(Problem(what, where))
        return ()
    accepted = []
    for number, entry in enumerate(entries, start=1):
        wrong = _wrong_acceptance(entry, f"{where} [[accept]] {number}")
        problems += wrong
        if not wrong:
            said = {key: ACCEPTANCE[key].kind.kept(Path(), value) for key, value in entry.items()}
            accepted.append(Acceptance(**said))
    return tuple(accepted)


def _wrong_acceptance(entry: Mapping[str, Any], place: str) -> list[Problem]:
    wrong = [
        Problem(f"unknown key {key!r}", place, did_you_mean(key, ACCEPTANCE))
        for key in entry
        if key not in ACCEPTANCE
    ]
    for key, declared in ACCEPTANCE.items():
        fix = f"Say {declared.help}."
        if key not in entry:
            wrong += [Problem(f"{key} is missing", place, fix)] if declared.needed else []
        elif not declared.kind.holds(entry[key]):
            got = f"{entry[key]}" if isinstance(entry[key], datetime.date) else entry[key]
            what = f"{key}: expected {declared.kind.expected}, got {got!r:.60}"
            wrong.append(Problem(what, place, fix))
    return wrong


def _text(path: Path) -> str:
    if is_pipe(path):
        raise InputError(Problem("is a pipe or a device, expected a file", str(path)))
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror})", str(path))) from error
    except ValueError as error:
        raise InputError(Problem(f"not valid TOML ({error})", str(path))) from error


def _pipes(kept: Any, place: str) -> list[Problem]:
    paths = [each for each in (kept if isinstance(kept, tuple) else (kept,))]
    return [
        Problem(f"{each} is a pipe or a device, expected a file or a folder", place)
        for each in paths
        if isinstance(each, Path) and is_pipe(each)
    ]


def _usable(
    text: str, where: str, problems: list[Problem]
) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """Return what TOML says without the lines that are none, and what those would have said.

    The first of them is a problem; the others may be its consequences.
    """
    lines, first, lost = text.split("\n"), "", set[tuple[str, str]]()
    for _ in range(_MOST_LINES):
        try:
            tree = tomllib.loads("\n".join(lines))
            break
        except ValueError as error:
            first = first or str(error)
            at = re.search(r"at line (\d+)", str(error))
            number = int(at[1]) - 1 if at else -1
            if number < 0 or not lines[number].strip():
                tree = {}
                break
            lost |= _said_in(lines, number)
            header = _HEADER.match(lines[number])
            mended = f"[{header[1]}]" if header else ""
            lines[number] = mended if mended != lines[number] else ""
    else:
        tree = {}
    if first:
        problems.append(Problem(f"not valid TOML ({first})", where))
    return tree, lost


_HEADER = re.compile(r"\s*\[\s*([\w.-]+)\s*\]?")


def _said_in(lines: Sequence[str], number: int) -> set[tuple[str, str]]:
    """Return the (table, key) that a line would have said."""
    key = re.match(r"\s*([\w-]+)\s*=", lines[number])
    headers = (match for line in reversed(lines[:number]) if (match := _HEADER.match(line)))
    table = next(headers, None)
    return {(table[1], key[1])} if key and table else set()


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not valid TOML ({error})", where)) from error


def _tables(
    tree: Mapping[str, Any], prefix: str, problems: list[Problem], where: str
) -> list[tuple[str, dict[str, Any]]]:
    found = []
    if prefix.count(".") >= _DEEPEST:
        problems.append(Problem(f"the table [{prefix:.80}] is nested deeper than any", where))
        return []
    own = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    if prefix:
        found.append((prefix, own))
    elif own:
        problems += [
            Problem(f"unknown key {key!r} outside every table", where, did_you_mean(key, TABLES))
            for key in own
        ]
    for key, value in tree.items():
        if isinstance(value, dict):
            inner = f"{prefix}.{key}" if prefix else key
            found += _tables(value, inner, problems, where)
    # A table that only groups others, such as [evidence], says nothing itself.
    return [(name, content) for name, content in found if content or name in TABLES]


def make_recipe(config: Config, flags: Sequence[tuple[str, str]]) -> Recipe:
    """Merge `--recipe` over `[training]` over the defaults; PlanError: what cannot be."""
    problems = Problems()
    given = {key: config.get("training", key) for key in TRAINING}
    for key, text in spelt_out(flags):
        where = f"--recipe {key}={text}"
        if key not in TRAINING:
            problems.append(Problem(f"unknown key {key!r}", where, did_you_mean(key, TRAINING)))
            continue
        try:
            given[key] = TRAINING[key].kind.parse(text)
        except ValueError as error:
            problems.append(Problem(str(error), where))
    if given["nesterov"] and given["momentum"] == 0:
        problems.append(Problem("nesterov needs a momentum above 0", "the recipe"))
    problems.raise_any(PlanError)
    known = {key: value for key, value in given.items() if value is not None}
    assumed = tuple(key for key in TRAINING if key not in known)
    return Recipe(**known, assumed=assumed)


def read_tolerances(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the tolerances of `--tolerance PROBE=VALUE`; PlanError: each that is no number."""
    found, problems = {}, Problems()
    for name, text in pairs:
        value = number_in(text)
        if isinstance(value, str):
            problems.append(Problem(f"expected a number, got {text!r}", f"--tolerance {name}"))
        else:
            found[name] = float(value)
    problems.raise_any(PlanError)
    return found


def write_config(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write values into an audit.toml, over what stands there; comments and order are kept.

    Args:
        path: the file; made, with its folder, where there is none.
        tables: by dotted name (`evidence.gaussian`), then by key: strings, numbers, truth values
            and lists of them. Paths are relative to the file.

    Raises:
        InputError: the file is not valid TOML, or a value cannot be written as TOML.
    """
    where = str(path)
    text = _text(path) if path.exists() else f"{HEAD}\n"
    _parsed(text, where)
    try:
        document = tomlkit.parse(text)
        for name, content in tables.items():
            table = _table_at(document, name, where) if content else {}
            for key, value in content.items():
                if key not in table:
                    _add(table, key, value)
                elif table[key] != value:
                    table[key] = value
        written = tomlkit.dumps(document)
        written.encode()
    except (TOMLKitError, ValueError, TypeError, RecursionError) as error:
        raise InputError(Problem(f"cannot be written ({error})", where)) from error
    after = _parsed(written, where)
    for name, content in tables.items():
        for key, value in content.items():
            if _table_at(after, name, where).get(key) != value:
                raise InputError(Problem(f"[{name}] {key} cannot be written", where, "Add it."))
    if written != text or not path.exists():
        write_atomically(path, written)


def _add(table: Any, key: str, value: Any) -> None:
    """Add a key before the blank lines and comments at a table's end: they announce the next."""
    body = table.value.body if isinstance(table, tomlkit.items.Table) else []
    tail = []
    while body and body[-1][0] is None:
        tail.append(body.pop())
    table[key] = value
    body.extend(reversed(tail))


def _table_at(tree: Any, name: str, where: str) -> Any:
    parts = name.split(".")
    for number, part in enumerate(parts):
        if part not in tree:
            tree[part] = tomlkit.table(is_super_table=number < len(parts) - 1)
        tree = tree[part]
        if not isinstance(tree, Mapping):
            raise InputError(Problem(f"{part} is a value, expected a table [{name}]", where))
    return tree
