"""Files that name a poison's samples: JSON objects, often a secret and the ids that it keys."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from poison_audit.atomic import write_atomically
from poison_audit.case.filetext import read_bytes
from poison_audit.case.forget import ForgetSet
from poison_audit.errors import InputError, Problem, Problems, did_you_mean, some

Rules = Mapping[str, tuple[str, Callable[[Any], bool]]]
"""By key: what its value has to be, half a sentence, and whether one is that."""
VERSION: Rules = {"version": ("1", lambda value: value == 1 and value is not True)}


def read_object(
    path: Path, *, most: int | None = None, fix: str = ""
) -> tuple[dict[str, Any], str]:
    """Return the JSON object of a file, and the file's SHA-256.

    Args:
        path: the file.
        most: bytes that are read; `fix` says what to do about a larger file.

    Raises:
        InputError: it cannot be read, is larger, or holds something else.
    """
    where, raw = str(path), read_bytes(path, most=most, fix=fix)
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error})", where)) from error
    if not isinstance(fields, dict):
        raise InputError(Problem("expected a JSON object", where))
    return fields, hashlib.sha256(raw).hexdigest()


def keyed_words(secret: bytes, name: str, count: int) -> NDArray[np.uint64]:
    """Return random words of an id, the same on every machine and version: (count,).

    They are raw words of Philox, keyed by SHA-256(secret, id): `randn` and the like may change
    between versions.
    """
    digest = hashlib.sha256(secret + name.encode()).digest()
    key, counter = (int.from_bytes(half, "little") for half in (digest[:16], digest[16:]))
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def wrong_keys(fields: Mapping[str, Any], known: Sequence[str], where: str) -> list[Problem]:
    """Return the keys of an object that nobody knows, and those that it lacks."""
    unknown = [
        Problem(f"unknown key {key!r}", where, did_you_mean(key, known))
        for key in sorted(set(fields) - set(known))
    ]
    return unknown + [Problem(f"missing key {k!r}", where) for k in known if k not in fields]


def wrong_values(fields: Mapping[str, Any], rules: Rules, where: str) -> list[Problem]:
    """Return the values of an object that are not what they have to be; missing ones are none."""
    return [
        Problem(f"expected {what}, got {fields[key]!r:.60}", f"{where} {key}")
        for key, (what, fits) in rules.items()
        if key in fields and not fits(fields[key])
    ]


def read_key(path: Path, rules: Rules) -> tuple[dict[str, Any], Problems]:
    """Return what a key's file holds, as the fields of its dataclass, and what is wrong with it.

    Lists become tuples. `commitment` is the SHA-256 of the file.

    Args:
        path: the file.
        rules: of what it holds besides its version, the secret and the ids.

    Raises:
        InputError: it is no JSON object, or its keys are others.
    """
    fields, digest = read_object(path)
    where = str(path)
    known = ("version", "secret", *rules, "planted", "held_out")
    Problems(wrong_keys(fields, known, where)).raise_any()
    try:
        secret = bytes.fromhex(fields["secret"])
    except (TypeError, ValueError):
        secret = b""
    problems = Problems()
    if len(secret) != 32:  # it is never printed, not even a wrong one
        problems.append(Problem("expected 64 hexadecimal digits", f"{where} secret"))
    problems += wrong_values(fields, {**VERSION, **rules}, where) + _wrong_ids(fields, where)
    del fields["version"]
    held = {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
    return held | {"secret": secret, "commitment": digest}, problems


def write_object(
    path: Path, fields: Mapping[str, Any], *, mode: int = 0o666, escaped: bool = False
) -> str:
    """Write a JSON object and its version, and return the file's SHA-256.

    Args:
        path: the file.
        fields: what it holds.
        mode: who may read it, before the umask.
        escaped: whether letters beyond ASCII are written out, for text that nobody would see.
    """
    held = {"version": 1, **fields}
    text = json.dumps(held, indent=1, ensure_ascii=escaped, allow_nan=False) + "\n"
    write_atomically(path, text, mode=mode)
    return hashlib.sha256(text.encode()).hexdigest()


def write_key(path: Path, key: Any) -> str:
    """Write a key's dataclass to `path`, for its owner alone, and return its commitment."""
    fields = asdict(key) | {"secret": key.secret.hex()}
    del fields["commitment"]
    return write_object(path, fields, mode=0o600)


def remark_on(path: Path) -> str:
    """Return what has to be said of who can read a key; empty: its owner alone can."""
    mode = path.stat().st_mode & 0o777
    if not mode & 0o044:
        return ""
    return (
        f"Other users of this machine can read {path} (mode {mode:o}). Whoever knows a key can "
        f"cheat: chmod 600 {path}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedRow:
    """One row of forget.csv whose sample a key names."""

    name: str
    """Its id in the key."""
    position: int
    """In the training table."""
    base: str | None
    place: str
    """Where it stands, for messages."""


def keyed_rows(forget: ForgetSet, poison: str, where_forget: str) -> list[KeyedRow]:
    """Return the rows of a forget set whose samples the key of this poison names."""
    columns = (forget.canaries, forget.keys, forget.positions, forget.bases, forget.rows)
    return [
        KeyedRow(name=name, position=position, base=base, place=f"{where_forget} row {number}")
        for name, key, position, base, number in zip(*columns, strict=True)
        if name is not None and key == poison
    ]


def named_by_key(forget: ForgetSet, poison: str, planted: Collection[str]) -> ForgetSet:
    """Return a forget set whose rows of no named attack are this key's where it planted their ids.

    So a bare list of positions is enough. What a sample holds is then held against the key as that
    of any other row.
    """
    named = set(forget.canaries)
    own = [
        not attack and canary is None and name in planted and name not in named
        for attack, canary, name in zip(forget.attacks, forget.canaries, forget.ids, strict=True)
    ]

    def put(values: tuple[Any, ...], new: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(b if mine else a for mine, a, b in zip(own, values, new, strict=True))

    return replace(
        forget,
        attacks=put(forget.attacks, [poison] * len(own)),
        keys=put(forget.keys, [poison] * len(own)),
        canaries=put(forget.canaries, forget.ids),
    )


def wrong_names(
    rows: Sequence[KeyedRow],
    key: Any,
    where: str,
    then: Callable[[KeyedRow], Problem | None] = lambda row: None,
) -> list[Problem]:
    """Return the rows whose sample the key did not plant.

    Args:
        rows: of forget.csv.
        key: says what is `planted`, and what `held_out`.
        where: what messages call the key.
        then: what else is wrong with a row that the key planted.
    """
    planted, held_out = set(key.planted), set(key.held_out)
    problems = []
    for row in rows:
        if row.name in held_out:
            what = f"the canary {row.name!r} is held out in {where}"
            fix = "A held-out key must never have been trained on."
            problems.append(Problem(what, row.place, fix))
        elif row.name not in planted:
            what = f"the canary {row.name!r} is not among the planted ids of {where}"
            problems.append(Problem(what, row.place, "Is this the key of this planting?"))
        elif (problem := then(row)) is not None:
            problems.append(problem)
    return problems


def _wrong_ids(fields: Mapping[str, Any], where: str) -> list[Problem]:
    problems = wrong_values(fields, _IDS, where)
    planted, held_out = ids = fields["planted"], fields["held_out"]
    for key, named in zip(_IDS, ids, strict=True):
        problems += repeated("ids", named, f"{where} {key}") if _are_ids(named) else []
    if not all(map(_are_ids, ids)):
        return problems
    if both := sorted(set(planted) & set(held_out)):
        what = f"ids are both planted and held out: {some(both)}"
        problems.append(Problem(what, where, "A held-out key must never have been trained on."))
    if len(planted) != len(held_out):
        what = f"{len(planted)} planted but {len(held_out)} held-out ids"
        problems.append(Problem(what, where, "Hold out as many as were planted."))
    return problems


# A lone surrogate is a string in JSON, but has no bytes to key the noise by.
def _are_ids(value: object) -> bool:
    return bool(value) and is_list(value, str.isprintable)


_IDS: Rules = dict.fromkeys(("planted", "held_out"), ("a list of ids, not empty", _are_ids))


def is_list(value: object, fits: Callable[[str], bool]) -> bool:
    """Say whether a value is a list of strings that all fit."""
    return isinstance(value, list | tuple) and all(isinstance(v, str) and fits(v) for v in value)


def repeated(noun: str, values: Sequence[str], where: str) -> list[Problem]:
    """Return, as at most one problem, the values that appear twice."""
    twice = sorted(value for value, times in Counter(values).items() if times > 1)
    return [Problem(f"{noun} appear twice: {some(twice)}", where)] if twice else []
