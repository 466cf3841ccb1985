"""What the deployed model showed of an attack, sample by sample, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from poison_audit.errors import InputError
from poison_audit.poisons.backdoor.reading import BACKDOOR
from poison_audit.poisons.indiscriminate.reading import INDISCRIMINATE
from poison_audit.poisons.targeted.reading import TARGETED, TargetHits
from poison_audit.poisons.token_canary.reading import TOKEN_CANARY, StringRanks
from poison_audit.records import Cell, Finding, Json, Measurement
from poison_audit.reports.view.exhibits import Shown, walls
from poison_audit.reports.view.figure import TONES
from poison_audit.reports.view.reading import phrase_of, place
from poison_audit.reports.view.words import printable, value
from poison_audit.statistics.reading import E, Reading
from poison_audit.verdict.record import AuditRecord

FOLDED = 12
"""From more targets than this on, the table is folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target of a targeted attack."""

    name: str
    label: str
    adversarial: str
    answer: str
    """What the deployed model answers; empty where an earlier version did not write it down."""
    without: str
    """What the references answer, each other answer once."""
    hit: str
    """The candidates that give it the label the attacker wanted."""
    face: Shown | None
    """What it looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deficit:
    """The accuracy that is missing against one reference."""

    reference: str
    deficit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence of the attacks that have samples of their own; empty where nothing was measured."""

    targets: tuple[Target, ...]
    targets_summary: str
    fold: bool
    phrase: str
    """The trigger of texts, in quotation marks; empty for pictures."""
    place: str
    """Where it stands."""
    controls: str
    """What the control triggers are."""
    strings: str
    """How many token canaries beat every fresh string."""
    deficits: tuple[Deficit, ...]


def evidence(record: AuditRecord) -> Evidence:
    """Return what the deployed model showed of each attack."""
    deployed = next((cell for cell in record.cells if cell.kind == "deployed"), None)
    seen = evidence_of(deployed, TARGETED)
    targets = () if seen is None else _targets(record, seen)
    trigger = record.subject.get("trigger")
    trigger = trigger if isinstance(trigger, Mapping) else {}
    backdoor = evidence_of(deployed, BACKDOOR)
    return Evidence(
        targets=targets,
        targets_summary="" if seen is None else _summary(seen),
        fold=len(targets) > FOLDED,
        phrase=phrase_of(trigger, most=80),
        place=place(trigger.get("position")),
        controls=_CONTROLS.get(backdoor.controls or "", "") if backdoor else "",
        strings=_strings(evidence_of(deployed, TOKEN_CANARY)),
        deficits=_deficits(deployed, deployed_finding(record, INDISCRIMINATE.name)),
    )


def evidence_of(cell: Cell | None, reading: Reading[E]) -> E | None:
    """Return what a probe saw in a cell; None where it measured nothing of the right form."""
    for seen in cell.measurements if cell else ():
        if seen.probe == reading.name and seen.evidence is not None:
            with suppress(InputError):
                return reading.read(seen.evidence)
    return None


def deployed_finding(record: AuditRecord, probe: str) -> Finding | None:
    """Return a probe's finding on the deployed model."""
    names = {cell.candidate for cell in record.cells if cell.kind == "deployed"}
    own = (f for f in record.findings if f.probe == probe and not f.way)
    return next((f for f in own if f.candidate in names), None)


def is_suspect(record: AuditRecord, finding: Finding) -> bool:
    """Say whether a control of this finding's measurement failed, so that it cannot be trusted."""
    return any(
        m.suspect is not None
        for cell in record.cells
        if (cell.candidate, cell.seed) == (finding.candidate, finding.seed)
        for m in _seen(cell, finding.way)
        if m.probe == finding.probe
    )


def _seen(cell: Cell, way: str) -> tuple[Measurement, ...]:
    """Return what was measured in a cell's model as it stands, or woken in some way."""
    woken = {each.name: each.measurements for each in cell.woken}
    return woken.get(way, ()) if way else cell.measurements


def deployed_tone(record: AuditRecord, probe: str) -> str:
    """Return how a probe's finding on the deployed model is coloured."""
    found = deployed_finding(record, probe)
    return TONES[found.outcome] if found else "plain"


def _targets(record: AuditRecord, seen: TargetHits) -> tuple[Target, ...]:
    hit: dict[str, list[str]] = {name: [] for name in seen.targets}
    seeds = {cell.candidate for cell in record.cells if cell.seed}
    faces = {s.name: s for wall in walls(record) if wall.role == "target" for s in wall.shown}
    measured = [(cell, own) for cell in record.cells if (own := evidence_of(cell, TARGETED))]
    spelt = _names(record, seen)
    without: dict[str, dict[str, None]] = {name: {} for name in seen.targets}
    for cell, own in measured:
        if cell.kind == "reference":
            for name, answer in zip(own.targets, own.answers, strict=False):
                without.get(name, {})[spelt(answer)] = None
    for cell, own in measured:
        of_seed = f", seed {cell.seed}" if cell.candidate in seeds else ""
        for name, success in zip(own.targets, own.hits, strict=True):
            if success and name in hit:
                hit[name].append(f"{printable(cell.candidate)}{of_seed}")
    told = zip(seen.targets, seen.labels, seen.adversarial, strict=True)
    return tuple(
        Target(
            name=printable(name),
            label=spelt(label),
            adversarial=spelt(adversarial),
            answer=spelt(seen.answers[place]) if seen.answers else "",
            without=", ".join(without[name]),
            hit=_who(hit[name], len(measured)),
            face=faces.get(printable(name)),
        )
        for place, (name, label, adversarial) in enumerate(told)
    )


def _names(record: AuditRecord, seen: TargetHits) -> Callable[[int], str]:
    """Return what spells a class as the targets that are shown do; else it is a number."""
    shown = {each.name: each for each in record.exhibits if each.role == "target"}
    names: dict[int, str] = {}
    for name, *labels in zip(seen.targets, seen.labels, seen.adversarial, strict=True):
        if name in shown:
            told = (shown[name].label, shown[name].wanted)
            names |= {k: printable(v) for k, v in zip(labels, told, strict=True) if v is not None}
    return lambda label: names.get(label, value(label))


def _who(names: list[str], measured: int) -> str:
    return f"all {measured}" if len(names) == measured > 1 else "; ".join(names) or "none"


def _summary(seen: TargetHits) -> str:
    return (
        f"{sum(seen.hits):,} of {len(seen.hits):,} targets hit in the deployed model, and "
        f"{seen.control_hits:,} of {seen.controls:,} controls."
    )


_CONTROLS = {
    "far": "other contents at its place, as strong as it: colours, figures, pixels, pieces of "
    "pictures; and its own content elsewhere",
    "order": "patches of the same pixels in random orders",
    "order and place": "patches of the same pixels in random orders, at random places",
    "tokens": "phrases of as many tokens, about as frequent in the retain texts, at its place",
}


def _strings(seen: StringRanks | None) -> str:
    if seen is None:
        return ""

    def beat_all(wins: Sequence[int]) -> str:
        return f"{sum(win == seen.draws for win in wins):,} of {len(wins):,}"

    told = f"{beat_all(seen.wins)} true strings beat all {seen.draws:,} fresh ones"
    if seen.held_out:
        told += f"; of the held-out strings {beat_all(seen.held_out)} do"
    return f"{told}. By chance one in {seen.draws + 1:,} does."


def _deficits(cell: Cell | None, finding: Finding | None) -> tuple[Deficit, ...]:
    told = (finding.details.get("references") if finding else None) or ()
    shown = [(one["reference"], _interval(one)) for one in told if one.get("deficit") is not None]
    seen = evidence_of(cell, INDISCRIMINATE)
    if seen is not None and not shown:
        shown = [
            (one.reference, f"{100 * (one.only_reference - one.only_candidate) / seen.n:+z.2f}")
            for one in seen.against
        ]
    return tuple(Deficit(reference=printable(name), deficit=deficit) for name, deficit in shown)


def _interval(one: Mapping[str, Json]) -> str:
    told = f"{100 * one['deficit']:+z.2f}"
    if one.get("low") is None or one.get("high") is None:
        return told
    if one["low"] <= -1:  # all is plausible on the harmless side
        return f"{told}, at most {100 * one['high']:z.2f}"
    return f"{told} [{100 * one['low']:z.2f}, {100 * one['high']:z.2f}]"
