"""audit.toml, and the flags that say the same: what is on trial, and the recipe it was trained by.

Everything audit.toml can say can be said by a flag, which wins. Unknown keys and values of the
wrong type are refused, all at once, with the nearest known key named.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poison_audit.atomic import write_atomically
from poison_audit.errors import InputError, PlanError, Problem, did_you_mean
from poison_audit.records import Acceptance, Recipe

RECIPE_KEYS = {
    "epochs": float,
    "optimizer": ("sgd", "adamw"),
    "lr": float,
    "momentum": float,
    "weight_decay": float,
    "batch_size": int,
    "schedule": ("constant", "cosine", "onecycle"),
    "augment": ("none", "flip", "crop-flip"),
}
KEYS: dict[str, tuple[str, ...]] = {
    "model": ("arch", "normalize", "max_tokens", "prompt", "label_words", "start"),
    "data": ("train", "test", "names"),
    "training": tuple(RECIPE_KEYS),
    "evidence.gaussian": ("canaries", "bases"),
    "evidence.targeted": ("targets",),
    "evidence.backdoor": ("trigger",),
    "evidence.token-canary": ("strings",),
    "reference": ("paths",),
    "policy": ("alpha", "gate"),
    "policy.tolerances": (
        "gaussian",
        "exposure",
        "token-canary",
        "targeted",
        "backdoor",
        "indiscriminate",
        "utility",
    ),
    "plan": ("methods", "budget", "seed", "seeds", "found", "found_seed", "tune"),
}
"""The tables of audit.toml and their keys; `[methods.NAME]` and `[probes.NAME]` hold parameters."""

ACCEPTANCE_KEYS = {
    "probe": "which probe's figure is accepted",
    "candidate": "whose",
    "bound": "up to where, on the scale of the probe's tolerance",
    "reason": "why",
    "owner": "who answers for it",
    "expires": "the last day on which it counts",
}
"""The keys of an entry of `[[accept]]`, each with what it says."""
PATHS = {
    ("data", "train"),
    ("data", "test"),
    ("evidence.gaussian", "canaries"),
    ("evidence.gaussian", "bases"),
    ("evidence.targeted", "targets"),
    ("evidence.backdoor", "trigger"),
    ("evidence.token-canary", "strings"),
    ("model", "start"),
}


MARK = "# Written by poison-audit"
"""How the first line of a file that this tool may write again begins."""


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

    def get(self, table: str, key: str, default: Any = None) -> Any:
        """Return the value of a key, or `default` where the file does not give it."""
        return self.values.get((table, key), default)


def find_config(model: Path, forget: Path | None) -> Path | None:
    """Return the audit.toml beside the checkpoint, else the one beside the forget set."""
    folders = [model if model.is_dir() else model.parent]
    folders += [forget.parent] if forget else []
    return next((f / "audit.toml" for f in folders if (f / "audit.toml").is_file()), None)


def read_config(path: Path) -> Config:
    """Read an audit.toml.

    Raises:
        InputError: everything that is wrong with the file.
    """
    where = str(path)
    tree = _parsed(_text(path), where)
    problems: list[Problem] = []
    values: dict[tuple[str, str], Any] = {}
    params: dict[str, Mapping[str, Any]] = {}
    accepted = _acceptances(tree.pop("accept", []), problems, where)
    for table, content in _tables(tree, "", problems, where):
        kind, _, name = table.partition(".")
        if kind in ("methods", "probes") and name:
            params[name] = content
            continue
        if table not in KEYS:
            hint = did_you_mean(table, [*KEYS, "methods.NAME", "probes.NAME"])
            problems.append(Problem(f"unknown table [{table}]", where, hint))
            continue
        for key, value in content.items():
            if key not in KEYS[table]:
                hint = did_you_mean(key, KEYS[table])
                problems.append(Problem(f"unknown key {key!r}", f"{where} [{table}]", hint))
            elif wrong := _mistyped(table, key, value):
                problems.append(Problem(wrong, f"{where} [{table}] {key}"))
            else:
                values[table, key] = _resolved(table, key, value, path.parent)
    if problems:
        raise InputError(problems)
    return Config(path=path, values=values, params=params, accepted=accepted)


def _acceptances(entries: Any, problems: list[Problem], where: str) -> tuple[Acceptance, ...]:
    """Read `[[accept]]`, adding everything that is wrong with it to `problems`."""
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        what = f"expected [[accept]], once for each accepted risk, got {entries!r:.60}"
        problems.append(Problem(what, where))
        return ()
    accepted = []
    for number, entry in enumerate(entries, start=1):
        place = f"{where} [[accept]] {number}"
        wrong = _wrong_acceptance(entry, place)
        problems += wrong
        if not wrong:
            accepted.append(
                Acceptance(
                    probe=entry["probe"],
                    candidate=entry.get("candidate", "deployed"),
                    bound=float(entry["bound"]),
                    reason=entry["reason"].strip(),
                    owner=entry["owner"].strip(),
                    expires=str(entry["expires"]),
                )
            )
    return tuple(accepted)


def _wrong_acceptance(entry: Mapping[str, Any], place: str) -> list[Problem]:
    wrong = [
        Problem(f"unknown key {key!r}", place, did_you_mean(key, ACCEPTANCE_KEYS))
        for key in entry
        if key not in ACCEPTANCE_KEYS
    ]
    for key in ACCEPTANCE_KEYS:
        if key not in entry:
            if key != "candidate":
                wrong.append(Problem(f"{key} is missing", place, f"Say {ACCEPTANCE_KEYS[key]}."))
        elif key == "bound":
            if not _is_number(entry[key]):
                wrong.append(Problem(f"bound: expected a number, got {entry[key]!r:.60}", place))
        elif key == "expires":
            if not _is_day(entry[key]):
                what = f"expires: expected a day such as 2027-03-31, got {str(entry[key])!r:.60}"
                wrong.append(Problem(what, place))
        elif not (isinstance(entry[key], str) and entry[key].strip()):
            what = f"{key}: expected words, got {entry[key]!r:.60}"
            wrong.append(Problem(what, place, f"Say {ACCEPTANCE_KEYS[key]}."))
    return wrong


def _is_day(value: Any) -> bool:
    if isinstance(value, datetime.datetime):
        return False
    if isinstance(value, datetime.date):
        return True
    if not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value)):
        return False
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror})", str(path))) from error
    except ValueError as error:
        raise InputError(Problem(f"not valid TOML ({error})", str(path))) from error


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not valid TOML ({error})", where)) from error


def _tables(
    tree: Mapping[str, Any], prefix: str, problems: list[Problem], where: str
) -> list[tuple[str, dict[str, Any]]]:
    found = []
    own = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    if prefix:
        found.append((prefix, own))
    elif own:
        problems += [
            Problem(f"unknown key {key!r} outside every table", where, did_you_mean(key, KEYS))
            for key in own
        ]
    for key, value in tree.items():
        if isinstance(value, dict):
            inner = f"{prefix}.{key}" if prefix else key
            found += _tables(value, inner, problems, where)
    # A table that only groups others, such as [evidence], says nothing itself.
    return [(name, content) for name, content in found if content or name in KEYS]


def _mistyped(table: str, key: str, value: Any) -> str | None:
    strings = key in ("paths", "names", "methods", "label_words")
    if strings:
        ok = isinstance(value, list) and all(isinstance(item, str) for item in value)
        expected = "a list of strings"
    elif table == "training":
        return _wrong_recipe(key, value)
    elif key == "budget":
        shares = value if isinstance(value, list) and value else [value]
        ok, expected = all(map(_is_number, shares)), "a number or a list of them"
    elif table == "policy.tolerances" or key in ("alpha", "found"):
        ok, expected = _is_number(value), "a number"
    elif key in ("seed", "seeds", "found_seed", "tune", "max_tokens"):
        ok, expected = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        ok, expected = isinstance(value, str), "a string"
    return None if ok else f"expected {expected}, got {value!r:.60}"


def _wrong_recipe(key: str, value: Any) -> str | None:
    kind = RECIPE_KEYS[key]
    if isinstance(kind, tuple):
        return None if value in kind else f"expected one of {', '.join(kind)}, got {value!r:.60}"
    least_open = key in ("epochs", "lr", "batch_size")
    number = _is_number(value) and (kind is float or isinstance(value, int))
    if number and (value > 0 or (value == 0 and not least_open)):
        return None
    what = "whole number" if kind is int else "number"
    return f"expected a {what} {'above 0' if least_open else 'of at least 0'}, got {value!r:.60}"


def _is_number(value: Any) -> bool:
    ok = isinstance(value, int | float) and not isinstance(value, bool)
    # A whole number may be too large for any float.
    return ok and abs(value) <= sys.float_info.max


def _resolved(table: str, key: str, value: Any, folder: Path) -> Any:
    if (table, key) in PATHS:
        return folder / value
    if (table, key) == ("reference", "paths"):
        return tuple(folder / item for item in value)
    return value


def make_recipe(config: Config, flags: Mapping[str, str]) -> Recipe:
    """Merge `--recipe key=value` over `[training]` over the defaults.

    Raises:
        PlanError: an unknown key or an impossible value.
    """
    problems: list[Problem] = []
    given = {key: config.get("training", key) for key in RECIPE_KEYS}
    for key, text in flags.items():
        where = f"--recipe {key}={text}"
        if key not in RECIPE_KEYS:
            problems.append(Problem(f"unknown key {key!r}", where, did_you_mean(key, RECIPE_KEYS)))
            continue
        value: Any = text if isinstance(RECIPE_KEYS[key], tuple) else parse_number(text)
        if wrong := _wrong_recipe(key, value):
            problems.append(Problem(wrong, where))
        given[key] = value
    if problems:
        raise PlanError(problems)
    known = {key: value for key, value in given.items() if value is not None}
    assumed = tuple(key for key in RECIPE_KEYS if key not in known)
    return Recipe(**known, assumed=assumed)


def parse_number(text: str) -> int | float | str:
    """Return the number that a flag's text spells, or the text.

    >>> parse_number("3"), parse_number("1e-3"), parse_number("x")
    (3, 0.001, 'x')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write_config(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Write values into an audit.toml, over what stands there; the rest of it is kept.

    A file that a person wrote, whose first line does not begin with `MARK`, is never changed.

    Args:
        path: the file; made, with its folder, where there is none.
        tables: by dotted name (`evidence.gaussian`), then by key: strings, numbers, truth values
            and lists of them. Paths are relative to the file.

    Returns:
        The lines that a person has to add or change by hand; empty if the file says it all now.

    Raises:
        InputError: the file is not valid TOML, or a value cannot be written as TOML.
    """
    where = str(path)
    text = _text(path) if path.exists() else MARK
    tree = _parsed(text, where)
    merged: dict[str, Any] = copy.deepcopy(tree)
    changed: dict[str, Any] = {}
    for name, content in tables.items():
        old, new = _table_at(merged, name, where), _table_at(changed, name, where)
        for key, value in content.items():
            if key not in old or old[key] != value:
                new[key] = value
        old.update(content)
    try:
        lines = spell_toml(changed)
        if lines and text.startswith(MARK):
            head = f"{MARK}, which may write it again: comments get lost. Paths: relative to it."
            write_atomically(path, f"{head}\n\n{spell_toml(merged)}")
            lines = ""
    except ValueError as error:
        raise InputError(Problem(f"cannot be written ({error})", where)) from error
    return lines


def _table_at(tree: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    for part in name.split("."):
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise InputError(Problem(f"{part} is a value, expected a table [{name}]", where))
    return tree


def spell_toml(tree: Mapping[str, Any]) -> str:
    """Return the TOML of nested tables; a table without keys of its own gets no header.

    >>> print(spell_toml({"a": {"x": 1e-4, "b": {"y": ["p", "q"]}}}), end="")
    [a]
    x = 0.0001
    <BLANKLINE>
    [a.b]
    y = ["p", "q"]

    Raises:
        ValueError: a value is neither a string, a number, a truth value, nor a list of them.
    """
    return "\n".join(_spelled_tables(tree, ()))


def _spelled_tables(tree: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    own = {
        key: value
        for key, value in tree.items()
        if not (isinstance(value, Mapping) or _is_entries(value))
    }
    header = f"[{'.'.join(map(_key, names))}]\n" if names else ""
    found = []
    if own:
        lines = "".join(f"{_key(key)} = {_value(value)}\n" for key, value in own.items())
        found.append(header + lines)
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _spelled_tables(value, (*names, key))
        elif _is_entries(value):
            header = f"[[{'.'.join(map(_key, (*names, key)))}]]\n"
            for entry in value:
                own_lines = [f"{_key(inner)} = {_value(item)}\n" for inner, item in entry.items()]
                found.append(header + "".join(own_lines))
    return found


def _is_entries(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(e, Mapping) for e in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    raise ValueError(f"no TOML for {value!r:.60}")


def _string(text: str) -> str:
    # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
    text.encode()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
