"""Two audits side by side: whether they can be compared, and what changed.

Comparable are audits of the same evidence, asked the same way and judged by the same tolerances:
the same tables, forget set, keys, triggers, targets and references, the same probes with the same
parameters and root seed, the same alpha, the same code of --factory. Models, methods, candidates,
budgets, gates, acceptances, devices and versions may differ.

A finding that both have is worse if its outcome is; or, its outcome being the same, if on the same
samples the attack surely grew by more than the room between the null and the tolerance. Intervals
of growth are simultaneous over all that are compared (Bonferroni), at the first audit's alpha.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from poison_audit.errors import InputError, Problem
from poison_audit.poisons.readings import POISONS
from poison_audit.records import WORST_FIRST, Finding, Json, Measurement, Outcome
from poison_audit.statistics.growth import Increase
from poison_audit.verdict.readings import increase, reading_of
from poison_audit.verdict.record import AuditRecord

_MEASURED = frozenset(WORST_FIRST) - {Outcome.FAILED, Outcome.NOT_MEASURED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One finding in two audits."""

    candidate: str
    probe: str
    seed: int
    before: Finding | None
    after: Finding | None
    direction: Literal["better", "same", "worse", "undecided", "new", "gone"]
    grown: Increase | None
    """By how much the effect grew on the same samples; None where these cannot be paired."""
    reason: str
    """One sentence."""
    way: str = ""
    """How the model was woken; empty: as it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What two comparable audits differ in."""

    changes: tuple[Change, ...]
    exit_code: int
    """0 no worse, 1 worse, 3 something that was measured no longer is."""
    sentence: str
    apart: tuple[str, ...] = ()
    """Candidates that only one of the audits had, by name: nothing of them is compared."""


def comparability(record: AuditRecord) -> str:
    """Return the SHA-256 of what two audits must share so that their figures can be compared."""
    told = json.dumps(_shared(record), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _shared(record: AuditRecord) -> dict[str, Json]:
    subject = record.subject
    reading = _part(subject, "reading")
    candidates = _part(subject, "candidates")
    given = [_object(candidate) for candidate in candidates.values()]
    references = [c.get("sha256") for c in given if c.get("kind") == "reference"]
    told: dict[str, Json] = {
        "report format": record.schema_version,
        "training samples": subject.get("train_sha256"),
        "forget set": subject.get("forget_sha256"),
        "test samples": subject.get("test_sha256"),
        **{
            each.shared: _part(subject, each.name).get(each.digest)
            for poison in POISONS.values()
            for each in poison.files
            if each.shared
        },
        "references": sorted(map(str, references)),
        "reading of texts": [reading.get(k) for k in ("max_tokens", "prompt", "label_words")],
        "probes": [asdict(step) for step in record.plan.probes],
        "root seed": record.plan.seed,
        "alpha": record.plan.policy.alpha,
        "tolerances": dict(record.plan.policy.tolerances),
    }
    if subject.get("factory_sha256") is not None:
        told["code of --factory"] = subject["factory_sha256"]
    if record.plan.tune:
        told["part of the evidence"] = "the halves that tuning did not see"
    return told


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _part(subject: Mapping[str, Json], key: str) -> Mapping[str, Json]:
    return _object(subject.get(key))


def differences(before: AuditRecord, after: AuditRecord) -> list[Problem]:
    """Return what makes two audits incomparable, each with both values; empty: nothing does."""
    found = []
    first, second = _shared(before), _shared(after)
    for key in first | second:
        if first.get(key) != second.get(key):
            fix = ""
            if key in ("alpha", "tolerances"):
                fix = "Decide one again under the other's policy: `decide B --policy A -o DIR`"
            elif key == "code of --factory":
                fix = "Audit the first again with the code of the second"
            what = f"another {key}: {_short(first.get(key))} against {_short(second.get(key))}"
            found.append(Problem(what, "the two audits cannot be compared", fix))
    for name, record in (("the first", before), ("the second", after)):
        if record.comparability not in (None, comparability(record)):
            what = "its comparability hash is not that of what it holds"
            found.append(Problem(what, f"{name} report", "Was it edited? Run `verify` on it"))
    return found


def _short(value: Json) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else f"{text[:12]}... ({len(text)} characters)"


def compare(before: AuditRecord, after: AuditRecord) -> Comparison:
    """Compare two audits of the same evidence.

    Raises:
        InputError: they cannot be compared; everything that stands in the way.
    """
    if problems := differences(before, after):
        raise InputError(problems)
    apart = _apart(before, after)
    old, new = (
        {key: f for key, f in _by_key(record).items() if key[0] not in apart}
        for record in (before, after)
    )
    both = [key for key in old if key in new]
    seen = _measurements(before), _measurements(after)
    paired = [
        key
        for key in both
        if reading_of(key[1]).increase is not None and all(key in each for each in seen)
    ]
    level = 1 - before.plan.policy.alpha / max(1, len(paired))
    changes = []
    for key in dict.fromkeys((*old, *new)):
        sides = old.get(key), new.get(key)
        if all(f is None or f.outcome is Outcome.NOT_MEASURED for f in sides):
            continue
        grown = increase(seen[0][key], seen[1][key], level=level) if key in paired else None
        direction, reason = _direction(*sides, grown)
        candidate, probe, seed, way = key
        one = Change(
            candidate=candidate,
            probe=probe,
            seed=seed,
            way=way,
            before=sides[0],
            after=sides[1],
            direction=direction,
            grown=grown,
            reason=reason,
        )
        changes.append(one)
    code, sentence = _conclusion(before, after, changes)
    return Comparison(changes=tuple(changes), exit_code=code, sentence=sentence, apart=apart)


def _apart(before: AuditRecord, after: AuditRecord) -> tuple[str, ...]:
    """Return the candidates that one audit lacks, but for what the first was judged by."""
    names = [[c.candidate for c in record.verdict.candidates] for record in (before, after)]
    return tuple(
        name
        for name in dict.fromkeys((*names[0], *names[1]))
        if not (name in names[0] and name in names[1]) and name != before.verdict.gate
    )


Key = tuple[str, str, int, str]
"""Candidate, probe, seed, way of waking."""


def _by_key(record: AuditRecord) -> dict[Key, Finding]:
    # Hypotheses explain a model; they are not compared.
    probes = {step.name for step in record.plan.probes}
    return {(f.candidate, f.probe, f.seed, f.way): f for f in record.findings if f.probe in probes}


def _measurements(record: AuditRecord) -> dict[Key, Measurement]:
    own = {(c.candidate, m.probe, c.seed, ""): m for c in record.cells for m in c.measurements}
    woken = {
        (c.candidate, m.probe, c.seed, w.name): m
        for c in record.cells
        for w in c.woken
        for m in w.measurements
    }
    return own | woken


def _direction(
    before: Finding | None, after: Finding | None, grown: Increase | None
) -> tuple[Any, str]:
    was, now = (f is not None and f.outcome in _MEASURED for f in (before, after))
    if before is None or (now and not was):
        return "new", "Measured in the second audit only."
    if after is None or (was and not now):
        return "gone", "Measured in the first audit only."
    ranks = [WORST_FIRST.index(f.outcome) for f in (before, after)]
    if before.outcome is not after.outcome and Outcome.INFO not in (before.outcome, after.outcome):
        better = ranks[1] > ranks[0]
        told = f"{before.outcome} became {after.outcome}."
        return ("better" if better else "worse"), told
    if grown is None or before.tolerance is None or before.null is None:
        return "undecided", "The same outcome; the samples cannot be paired."
    room = before.tolerance - before.null
    low, high = grown.low, grown.high
    told = f"The effect changed by {grown.after - grown.before:+.3f} [{low:.3f}, {high:.3f}]"
    if low > 0 and grown.after - grown.before > room:
        return "worse", f"{told}: surely stronger, and by more than the tolerance leaves room for."
    if high < 0 and grown.before - grown.after > room:
        return "better", f"{told}: surely weaker, and by more than the tolerance leaves room for."
    if -room <= low and high <= room:
        return "same", f"{told}, within what the tolerance leaves room for ({room:.3f})."
    return "undecided", f"{told}: too few samples to call it a change, or none."


def _conclusion(before: AuditRecord, after: AuditRecord, changes: list[Change]) -> tuple[int, str]:
    ranks = [WORST_FIRST.index(r.verdict.outcome) for r in (before, after)]
    worse = [c for c in changes if c.direction == "worse" and c.after and c.after.gating]
    gone = [c for c in changes if c.direction == "gone" and c.before and c.before.gating]
    verdicts = f"{before.verdict.outcome} before, {after.verdict.outcome} after"
    if _deployed(before) is not None and _deployed(before) == _deployed(after):
        verdicts += "; the deployed models are bit for bit the same"
    if ranks[1] < ranks[0] or worse:
        many = f"{len(worse)} finding{'s' * (len(worse) != 1)} got worse"
        return 1, f"Worse: {many if worse else 'the verdict got worse'} ({verdicts})."
    if gone:
        told = f"{len(gone)} finding{'s are' if len(gone) > 1 else ' is'} no longer measured"
        return 3, f"Not comparable throughout: {told} ({verdicts})."
    return 0, f"No worse: {verdicts}."


def _deployed(record: AuditRecord) -> str | None:
    return next((cell.digest for cell in record.cells if cell.kind == "deployed"), None)
