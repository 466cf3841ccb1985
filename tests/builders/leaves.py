"""Reports that were edited in one place, and what of a report nothing in it shows to be right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from poison_audit.atomic import digest_of

Place = tuple[Any, ...]
LISTED = {
    "the raw scores": ("cells.*.measurements.*", "cells.*.woken.*"),
    "what was remarked on them": ("cells.*.suspect", "cells.*.limited"),
    "the counts of right answers": ("sanity.*",),
    "weights": ("cells.*.digest",),
    "plan": ("plan.*",),
    "recipe": ("recipe.*",),
    "tuning": ("tuning*",),
    "cost": ("cells.*.probe_seconds", "cells.*.spent*", "cells.*.peak*", "cells.*.seconds"),
    "movement": ("cells.*.movement.*",),
    "the hypotheses' figures": ("findings.*.details.*",),
    "names, paths, sizes": ("subject.*", "files.*", "places.*"),
    "samples that are shown": ("exhibits.*",),
    "the notices and the limits": ("notices*", "limits*"),
    "versions, times, command and settings": ("tool_version", "environment.*"),
}
"""By the words that `verify` says: which places of a report they are of."""


def leaves(tree: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the path of every leaf; of what is empty, its own."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list) and value:
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key)


def spelt(place: Place) -> str:
    """Return a path with points: `cells.0.kind`."""
    return ".".join(map(str, place))


def listed(place: Place, said: str) -> str | None:
    """Return the words by which `verify` says that a place is taken on trust; None if it did not.

    Args:
        place: a leaf of the report.
        said: all that it says.
    """
    trusted = next((x for x in said.splitlines() if x.startswith("TAKEN ON TRUST: ")), "")
    return next(
        (
            words
            for words, patterns in LISTED.items()
            if words in trusted and any(fnmatchcase(spelt(place), each) for each in patterns)
        ),
        None,
    )


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.05
    if isinstance(value, str):
        return f"{value[:-1]}{'0' if value[-1:] != '0' else '1'}"
    return "x" if value is None else ["x"]


def edit(tree: dict[str, Any], path: Place, *, careful: bool) -> str:
    """Return the report with one leaf changed; careful: with its digest, and without signature."""
    edited = json.loads(json.dumps(tree))
    at = edited
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = changed(at[path[-1]])
    if careful:
        rest = {key: value for key, value in edited.items() if key != "seal"}
        edited["seal"] = {"digest": digest_of(rest), "signature": None, "signer": None}
    return json.dumps(edited)
