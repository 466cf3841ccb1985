"""What each probe's evidence looks like: checked before a report that somebody gives is judged.

A report.json may be anybody's. Its measurements are judged and drawn only if they have the keys,
the types and the ranges that the probes write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from poison_audit.errors import Problem
from poison_audit.records import AuditRecord, Json, Measurement

MOST = 1e6
"""Farthest score: |xi| / sigma of a canary is about the root of its dimension."""
_MANY = 10**9

Fits = Callable[[Any], bool]


def wrong_evidence(record: AuditRecord) -> list[Problem]:
    """Return what is wrong with the form of a report's measurements, each with its place."""
    found = []
    cells = [(f"cells[{i}]", cell) for i, cell in enumerate(record.cells)]
    if record.rehearsal is not None:
        cells += [(f"rehearsal.cells[{i}]", c) for i, c in enumerate(record.rehearsal.cells)]
    for place, cell in cells:
        for number, seen in enumerate(cell.measurements):
            where = f"{place}.measurements[{number}].evidence"
            found += [Problem(what, f"{where}: {seen.probe}") for what in _wrong(seen)]
    return found


def _wrong(seen: Measurement) -> Iterator[str]:
    if seen.evidence is None:
        return
    form = FORMS.get(seen.probe)
    if form is None:
        yield f"no probe is named {seen.probe!r:.60}"
        return
    wrong = False
    for key, fits in form.items():
        optional = key.endswith("?")
        name = key.removesuffix("?")
        if name not in seen.evidence:
            wrong |= not optional
            if not optional:
                yield f"{name} is missing"
        elif not fits(seen.evidence[name]):
            wrong = True
            yield f"{name} is {seen.evidence[name]!r:.60}"
    if not wrong:
        yield from _at_odds(seen.probe, seen.evidence)


def _at_odds(probe: str, seen: Mapping[str, Json]) -> Iterator[str]:
    """Yield what does not fit together, of evidence whose parts are right for themselves."""
    if probe in ("exposure", "token-canary"):
        wins = [*seen["wins"], *(seen["held_out"] if probe == "token-canary" else ())]
        if max(wins) > seen["draws"]:
            yield f"a canary beats {max(wins)} of {seen['draws']} draws"
    elif probe == "targeted":
        n = len(seen["hits"])
        if not n == len(seen["targets"]) == len(seen["labels"]) == len(seen["adversarial"]):
            yield "targets, labels, adversarial and hits differ in length"
        for key, total in (("targets", n), ("hits", sum(seen["hits"]))):
            if sum(s[key] for s in seen["strata"]) != total:
                yield f"the strata hold other {key} than the list"
        for s in seen["strata"]:
            if s["hits"] > s["targets"] or s["control_hits"] > s["controls"]:
                yield "a stratum holds more hits than samples"
        if seen["control_hits"] > seen["controls"]:
            yield "there are more control hits than controls"
    elif probe == "backdoor":
        n, hits = len(seen["hits"]), sum(seen["hits"])
        if seen["clean_hits"] > n:
            yield "there are more hits without the trigger than inputs"
        controls, above = len(seen["control_rates"]), seen.get("above")
        if above is not None and not max(3, above) <= controls:
            yield f"{above} of {controls} controls cannot have ended the search"
        for one in seen.get("references") or ():
            if sum(one[key] for key in _PAIR) != n or one["both"] + one["only_candidate"] != hits:
                yield "a reference's counts are not those of these inputs"
    elif probe == "indiscriminate":
        for one in seen["against"]:
            if sum(one[key] for key in _PAIR) != seen["n"]:
                yield "a reference's counts are not those of these samples"
    elif probe == "membership":
        if seen["hits"] > seen["forget"]:
            yield "there are more hits than forget samples"
    elif probe == "utility":
        keys = ("both", "only_deployed", "only_candidate", "neither")
        if sum(seen[key] for key in keys) != seen["n"]:
            yield "the counts are not those of these samples"


_PAIR = ("both", "only_candidate", "only_reference", "neither")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MANY


def _some(value: Any) -> bool:
    return _count(value) and value > 0


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _name(value: Any) -> bool:
    return isinstance(value, str)


def _bit(value: Any) -> bool:
    return _count(value) and value <= 1


def _list(fits: Fits, *, least: int = 0) -> Fits:
    return lambda value: (
        isinstance(value, list | tuple) and len(value) >= least and all(map(fits, value))
    )


def _object(**form: Fits) -> Fits:
    return lambda value: (
        isinstance(value, Mapping)
        and all(key in value and fits(value[key]) for key, fits in form.items())
    )


_COUNTS = dict.fromkeys(_PAIR, _count)
FORMS: Mapping[str, Mapping[str, Fits]] = {
    "gaussian": {
        "scores": _list(_number, least=2), "held_out": _list(_number), "dropped": _count,
    },
    "exposure": {"wins": _list(_count, least=2), "draws": _some},
    "token-canary": {"wins": _list(_count, least=2), "draws": _some, "held_out": _list(_count)},
    "targeted": {
        "targets": _list(_name, least=1), "labels": _list(_count), "adversarial": _list(_count),
        "hits": _list(_bit, least=1), "controls": _some, "control_hits": _count,
        "strata": _list(
            _object(targets=_count, hits=_count, controls=_count, control_hits=_count), least=1
        ),
    },
    "backdoor": {
        "label": _count, "hits": _list(_bit, least=1), "clean_hits": _count,
        "control_rates": _list(_share, least=2), "control_every?": _some, "above?": _some,
        "controls?": _name,
        "references?": _list(_object(reference=_name, **_COUNTS)),
    },
    "indiscriminate": {
        "n": _some, "against": _list(_object(reference=_name, **_COUNTS), least=1),
    },
    "membership": {
        "auc": _share, "auc_se": _share, "hits": _count, "forget": _some, "fpr": _share,
    },
    "utility": {
        "n": _some, "both": _count, "only_deployed": _count, "only_candidate": _count,
        "neither": _count,
    },
}  # fmt: skip
"""By probe: its keys, a `?` after those that may be absent, and what each holds."""
