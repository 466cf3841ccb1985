"""Files that name a poison's samples: JSON objects, often a secret and the ids that it keys."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from poison_audit.errors import InputError, Problem, did_you_mean


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
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(-1 if most is None else most + 1)
        if most is not None and len(raw) > most:
            raise InputError(Problem(f"larger than {most >> 20} MiB", where, fix))
        fields = json.loads(raw)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(f"cannot be read ({reason})", where)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"not JSON ({error})", where)) from error
    if not isinstance(fields, dict):
        raise InputError(Problem("expected a JSON object", where))
    return fields, hashlib.sha256(raw).hexdigest()


def wrong_keys(fields: Mapping[str, Any], known: Sequence[str], where: str) -> list[Problem]:
    """Return the keys of an object that nobody knows, and those that it lacks."""
    unknown = [
        Problem(f"unknown key {key!r}", where, did_you_mean(key, known))
        for key in sorted(set(fields) - set(known))
    ]
    return unknown + [Problem(f"missing key {k!r}", where) for k in known if k not in fields]


def wrong_secret(value: object, where: str) -> list[Problem]:
    """Return what is wrong with a secret as a file spells it. It is never printed."""
    try:
        fine = isinstance(value, str) and len(bytes.fromhex(value)) == 32
    except ValueError:
        fine = False
    return [] if fine else [Problem("expected 64 hexadecimal digits", f"{where} secret")]


def wrong_ids(planted: object, held_out: object, where: str) -> list[Problem]:
    """Return what is wrong with the ids of a key."""
    problems: list[Problem] = []
    lists: list[list[str]] = []
    for key, value in (("planted", planted), ("held_out", held_out)):
        if isinstance(value, list) and value and all(map(_is_id, value)):
            lists.append(value)
            if repeated := sorted(name for name, times in Counter(value).items() if times > 1):
                problems.append(Problem(f"ids appear twice: {_some(repeated)}", f"{where} {key}"))
        else:
            what = f"expected a list of ids, not empty, got {value!r:.60}"
            problems.append(Problem(what, f"{where} {key}"))
    if len(lists) < 2:
        return problems
    if both := sorted(set(lists[0]) & set(lists[1])):
        what = f"ids are both planted and held out: {_some(both)}"
        problems.append(Problem(what, where, "A held-out key must never have been trained on."))
    if len(lists[0]) != len(lists[1]):
        what = f"{len(lists[0])} planted but {len(lists[1])} held-out ids"
        problems.append(Problem(what, where, "Hold out as many as were planted."))
    return problems


def wrong_name(
    name: str, planted: Collection[str], held_out: Collection[str], *, place: str, where: str
) -> list[Problem]:
    """Return the problem of a row, at `place`, whose sample the key in `where` did not plant."""
    if name in held_out:
        what = f"the canary {name!r} is held out in {where}"
        return [Problem(what, place, "A held-out key must never have been trained on.")]
    if name not in planted:
        what = f"the canary {name!r} is not among the planted ids of {where}"
        return [Problem(what, place, "Is this the key of this planting?")]
    return []


def _is_id(value: object) -> bool:
    # A lone surrogate is a string in JSON, but has no bytes to key the noise by.
    return isinstance(value, str) and value.isprintable()


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
